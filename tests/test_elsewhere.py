"""What broke real programs under projects like this one: each is a case of ours.

The list is that of what was known beforehand (INTERCEPTION, "What broke real programs elsewhere"); here it says which
tests hold it. One line of it has none: Go's SIGURG, which restarts a call for ever that seccomp notifies of
(libseccomp #302), since no call is notified here.
"""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parent

# what happened and where, then FILE NAME of each case; a .c file's is a CASE
ELSEWHERE = {
    "epoll registered before the descriptor was replaced (RStudio): ip2unix #6": [
        "shim/programs/epoll.c level_before_connect",
        "shim/programs/epoll.c edge_before_connect",
        "shim/programs/epoll.c oneshot_before_connect",
        "shim/programs/syscalls.c epoll_before_connect",
    ],
    "accept4 with a NULL address: ip2unix 2.1.1": ["shim/programs/accept.c no_address_wanted"],
    "accept that returns descriptor 0: ip2unix 2.2.2": ["shim/programs/accept.c descriptor_0"],
    "a call before the library's constructor ran: ip2unix 2.2.2": [
        "shim/test_early.py test_another_librarys_constructor_connects"
    ],
    "a child's close destroyed the parent's socket (JVM): ip2unix #16, #28": [
        "shim/programs/sharing.c a_childs_close_does_not_hurt_the_parent",
        "shim/test_runtimes.py test_java_registers_early_and_starts_children",
    ],
    "the parent binds, the child accepts (uvicorn --reload, hypercorn): mirrord #864": [
        "shim/programs/sharing.c the_parent_binds_the_child_accepts",
        "shim/test_runtimes.py test_a_server_that_reloads",
        "e2e/test_daemons.py test_gunicorn_reloads",
    ],
    "an nginx worker's crash: Slim #6": ["e2e/test_daemons.py test_an_nginx_worker_crashes"],
    "a non-blocking connect: mirrord PR 2776": [
        "shim/programs/connect.c non_blocking",
        "shim/programs/connect.c non_blocking_to_a_dead_port",
    ],
    "a UDP connect error: mirrord #436": [
        "shim/programs/udp_connect.c nobody_there_tells_the_second_send",
        "shim/programs/udp_connect.c nobody_there_tells_a_blocked_receiver",
    ],
    "a second bind that wrongly succeeds: mirrord #1310, libkrun #860": [
        "shim/programs/bind.c a_port_that_is_taken",
        "shim/programs/bind.c reuseaddr_gives_no_second_listener",
        "shim/programs/udp_bind.c a_port_that_is_taken",
    ],
    "bind to port 0, and the program sees another port than its clients: libkrun #818": [
        "shim/programs/bind.c port_0",
        "shim/programs/bind.c port_0_is_known_before_listen",
    ],
    "listening on :: and ::1 (node, Go): mirrord #848, #2807": [
        "shim/test_runtimes.py test_node_listens_on_any_of_both_versions",
        "shim/test_runtimes.py test_node_listens_on_both_loopbacks",
    ],
    "SO_RCVTIMEO not carried over: libkrunfw #127": ["shim/programs/replace.c timeouts"],
    "getsockopt with NULL (Chromium): libkrunfw #140": [
        "shim/programs/options.c bad_values_of_a_client",
        "shim/programs/pointers.c options",
    ],
    "TCP_NODELAY on a Unix socket is an error that programs treat as fatal: netdata #3691, ocaml-conduit #63": [
        "shim/programs/options.c set_after_connect"
    ],
    "syscall() for accept4 and epoll in libuv: libuv #1880, #1969": ["shim/programs/syscalls.c a_whole_connection"],
    "io_uring: libuv #1880, #1969": ["shim/test_io_uring.py test_it_is_refused"],
    "TCP Fast Open, sendmsg on an unconnected socket: systemd #34579": [
        "shim/programs/data.c fast_open_by_sendmsg",
        "shim/programs/data.c fast_open_by_sendto",
    ],
    "getaddrinfo(NULL, ...) (python -m http.server): mirrord #2654": [
        "shim/test_runtimes.py test_getaddrinfo_of_nothing"
    ],
    "a mutex in the preload and a fork: hang (git-annex): nocache #34": [
        "shim/programs/threads.c a_fork_while_other_threads_connect"
    ],
    "an LD_PRELOAD that was already there got lost: nocache #5": [
        "shim/test_exec.py test_a_foreign_preload_stays_beside_ours",
        "shim/test_exec.py test_a_foreign_preload_from_outside",
    ],
    "a handler that leaks: bypass4netns #115": ["e2e/test_leaks.py test_nothing_is_left_of_apps"],
    "a nested network namespace served by mistake: bypass4netns #65": [
        "shim/programs/bypass.c a_namespace_that_it_makes_for_itself"
    ],
    "the program's own AF_UNIX captured: libkrun #510": [
        "shim/programs/bypass.c its_own_unix_services",
        "shim/programs/bypass.c its_own_unix_socket_with_a_name_like_ours",
    ],
    "AAAA answered NXDOMAIN where NODATA is right, musl then fails: apple/container #786": [
        "e2e/test_names.py test_dig",
        "e2e/test_musl.py test_a_musl_server_and_a_musl_client",
    ],
    "a backend chosen at connect time stays pinned when it dies: cilium #12859": [
        "shim/test_apps.py test_a_server_that_goes_and_comes_back",
        "e2e/test_balance.py test_no_client_notices_an_instance_that_goes_and_comes",
    ],
}
HELD = [case for cases in ELSEWHERE.values() for case in cases]


@pytest.mark.parametrize("case", HELD)
def test_there_is_such_a_case(case: str) -> None:
    file, name = case.split()
    head = f"CASE({name})" if file.endswith(".c") else f"def {name}("
    assert head in (TESTS / file).read_text()
