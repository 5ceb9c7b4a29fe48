"""Who is who, whatever a program says: identities agree, can't be forged, and strangers reach nothing."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from appswitch.wire import trap
from tests.harness import Switch, eventually

PYTHON = sys.executable

# Tells every client what the server's side sees of it, and then what the client's side sees.
SERVER = """
import socket, sys
s = socket.create_server(("", 7000))
while True:
    c, peer = s.accept()
    seen = repr((peer[0], c.getpeername()[:2] == peer[:2], peer[1], c.getsockname()[:2])).encode()
    try:
        c.sendall(seen)
    except BrokenPipeError:
        pass
    c.close()
"""
CLIENT = """
import socket, sys
for _ in range(4):
    c = socket.create_connection((sys.argv[1], 7000))
    ip, same, port, local = eval(c.recv(999))
    assert same and (ip, port) == c.getsockname()[:2] and local == c.getpeername()[:2], (ip, port, local, c)
    print(ip, local[0])
"""


@pytest.mark.parametrize("dest", ["10.9.9.1", "server"])
@pytest.mark.parametrize("client", [["--ip", "10.9.9.2"], ["--name", "client", "--no-netns"], []])
def test_both_ends_agree(switch: Switch, dest: str, client: list[str]) -> None:
    """By the trap handler's connect (the first) and by capability (from the third on)."""
    switch.spawn("--ip", "10.9.9.1", "--name", "server", PYTHON, "-c", SERVER)
    switch.wait_for("server:7000")
    lines = switch.run(*client, PYTHON, "-c", CLIENT, dest).stdout.splitlines()
    assert len(set(lines)) == 1
    assert lines[0].split()[1] == "10.9.9.1"
    if "--ip" in client:
        assert lines[0].split()[0] == "10.9.9.2"


# Speaks the trap protocol itself, to get a capability, and connects under a name of its choice.
HOSTILE = """
import os, socket, sys
from ipaddress import ip_address
from appswitch._wire import ffi, lib
from appswitch.wire import socknames, trap
from appswitch.wire.addresses import pack_ip

dest, claimed = sys.argv[1], sys.argv[2]
channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
channel.connect(os.environ["APPSWITCH_SOCKET"])
request = ffi.new("struct as_request *")
request.magic, request.op, request.flags = lib.AS_MAGIC, lib.AS_CONNECT, lib.AS_WANT_CAPABILITIES
ffi.memmove(request.remote.ip, pack_ip(ip_address(dest)), 16)
request.remote.port, request.remote.family = 7000, ip_address(dest).version
channel.send(bytes(ffi.buffer(request, trap.HEADER)))
_, fds, _, _ = socket.recv_fds(channel, 4096, 10)
os.close(fds[0])
forged = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
forged.bind(socknames.client_name(0, (ip_address(claimed), 40000), (ip_address(dest), 7000), 4, 4, 0))
forged.connect(f"/proc/self/fd/{fds[1]}")
print(forged.recv(999))
"""


@pytest.mark.parametrize("claimed", ["10.9.9.3", "127.0.0.1"])
def test_a_capability_does_not_let_forge_an_identity(switch: Switch, claimed: str) -> None:
    switch.spawn("--ip", "10.9.9.1", "--name", "server", PYTHON, "-c", SERVER)
    switch.spawn("--ip", "10.9.9.3", "sleep", "60")
    switch.wait_for("server:7000")
    hostile = ["--ip", "10.9.9.2", "env", "-u", "LD_PRELOAD", PYTHON, "-c", HOSTILE, "10.9.9.1"]
    assert switch.run(*hostile, claimed).stdout == "b''\n", "the server accepted it"
    assert "10.9.9.2" in switch.run(*hostile, "10.9.9.2").stdout, "its own identity it may show"


def test_a_capability_that_was_passed_on_is_worth_nothing_to_a_stranger(switch: Switch) -> None:
    """A friend inside hands its descriptor to a process of the host's namespace."""
    switch.spawn("--ip", "10.9.9.1", "--name", "server", PYTHON, "-c", SERVER)
    switch.wait_for("server:7000")
    path = str(switch.directory / "meet")
    with socket.socket(socket.AF_UNIX) as meeting:
        meeting.bind(path)
        meeting.listen()
        meeting.settimeout(30)
        friend = HOSTILE.partition("forged =")[0] + (
            f"s = socket.socket(socket.AF_UNIX); s.connect({path!r}); socket.send_fds(s, [b'x'], fds[1:2]); s.recv(1)"
        )
        inside = switch.spawn(
            "--ip", "10.9.9.2", "env", "-u", "LD_PRELOAD", PYTHON, "-c", friend, "10.9.9.1", "10.9.9.2"
        )
        link, _ = meeting.accept()
        with link:
            _, fds, _, _ = socket.recv_fds(link, 10, 1)
            from ipaddress import ip_address

            from appswitch.wire import socknames

            with socket.socket(socket.AF_UNIX) as stranger:
                name = (ip_address("10.9.9.2"), 40001), (ip_address("10.9.9.1"), 7000)
                stranger.bind(socknames.client_name(0, *name, 4, 4, 0))
                stranger.settimeout(30)
                stranger.connect(f"/proc/self/fd/{fds[0]}")
                assert stranger.recv(99) == b""
            os.close(fds[0])
        assert inside.wait(30) == 0


def frame(op: int, text: bytes = b"") -> bytes:
    from appswitch._wire import ffi, lib

    request = ffi.new("struct as_request *")
    request.magic, request.op, request.text_size = lib.AS_MAGIC, op, len(text)
    request.remote.port = request.local.port = 7000
    request.remote.family = request.local.family = 6
    return bytes(ffi.buffer(request, trap.HEADER)) + text


def ask(switch: Switch, request: bytes, user: int | None = None) -> int:
    """The errno that a process of the host's namespace gets."""
    code = (
        "import socket, sys; c = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); c.connect(sys.argv[1]);"
        "c.send(bytes.fromhex(sys.argv[2])); print(int.from_bytes(c.recv(2000)[4:8], 'little'))"
    )
    python = shutil.which("python3", path="/usr/bin") or PYTHON  # one that every user may run
    command = [python, "-c", code, str(switch.trap), request.hex()]
    return int(subprocess.run(command, check=True, capture_output=True, text=True, user=user, cwd="/").stdout)


def test_an_unidentified_process_is_served_nothing(switch: Switch) -> None:
    from appswitch._wire import lib

    for op in (lib.AS_CONNECT, lib.AS_BIND, lib.AS_LISTEN, lib.AS_RESOLVE, lib.AS_WHO):
        assert ask(switch, frame(op)) == errno.ESRCH


@pytest.mark.root
def test_another_user_may_not_register(switch: Switch) -> None:
    from appswitch._wire import lib

    request = frame(lib.AS_REGISTER, b"APPSWITCH_NAME=db\0")
    assert ask(switch, request, user=65534) == errno.EPERM
    assert ask(switch, request) == 0


def test_a_namespace_inside_an_app_is_not_the_app(switch: Switch) -> None:
    """It has a network namespace of its own that nobody registered: sealed, as the kernel makes it (no route)."""
    code = (
        "import socket, errno\ntry: socket.create_connection(('10.9.9.1', 7000))\nexcept OSError as e: print(e.errno)"
    )
    switch.spawn("--ip", "10.9.9.1", "--name", "server", PYTHON, "-c", SERVER)
    switch.wait_for("server:7000")
    done = switch.run("unshare", "-rn", PYTHON, "-c", code)
    assert done.stdout == f"{errno.ENETUNREACH}\n"


def test_groups(switch: Switch) -> None:
    """The paper's Figure 1, as far as one service shows it: a group in common, or none asked for."""
    switch.spawn("--ip", "10.9.9.1", "--name", "db", "--tag", "grp=2", PYTHON, "-c", SERVER)
    switch.wait_for("db:7000")
    connect = "import socket; print(socket.create_connection(('db', 7000)).recv(1))"
    assert switch.run("--tag", "grp=1", "--tag", "grp=2", PYTHON, "-c", connect).stdout == "b'('\n"
    for tags in (["--tag", "grp=1"], [], ["--ip", "10.9.9.1"]):
        denied = switch.run(*tags, PYTHON, "-c", connect, check=False)
        assert "ConnectionRefusedError" in denied.stderr


# Several names, one a line: source, destination, the port and the family of the server.
FORGER = (
    HOSTILE.partition("forged =")[0]
    + """
for line in sys.stdin:
    forged = socket.socket(socket.AF_UNIX)
    if line != "unnamed\\n":
        source, to, port, family = line.split()
        name = (ip_address(source), 40001), (ip_address(to), int(port)), 4, int(family), 0
        forged.bind(socknames.client_name(0, *name))
    forged.connect(f"/proc/self/fd/{fds[1]}")
    print(forged.recv(99).decode() or "closed", flush=True)
    forged.close()
"""
)

GREETER = """
import contextlib, socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
s = socket.create_server((sys.argv[1], 7000), family=family, dualstack_ipv6=len(sys.argv) > 2)
while True:
    with contextlib.suppress(BrokenPipeError):
        s.accept()[0].sendall(b"in")
"""

SERVER_ALIAS, CLIENT_ALIAS = "fd61:7073:7769::a09:901", "fd61:7073:7769::a09:902"


@pytest.mark.parametrize(
    ("listens", "client", "dials", "true", "forged"),
    [
        (
            ["0.0.0.0"],
            "10.9.9.2",
            "10.9.9.1",
            ["10.9.9.2 10.9.9.1 7000 4"],
            [
                "unnamed",
                "10.9.9.3 10.9.9.1 7000 4",
                "127.0.0.1 10.9.9.1 7000 4",
                "10.9.9.1 10.9.9.1 7000 4",
                f"{CLIENT_ALIAS} 10.9.9.1 7000 4",
                "10.9.9.2 10.9.9.1 7000 6",  # the server would get another kind of sockaddr
                "10.9.9.2 10.9.9.1 25 4",
                "10.9.9.2 10.9.9.2 7000 4",
                "10.9.9.2 10.9.9.7 7000 4",
                "10.9.9.2 0.0.0.0 7000 4",
                "10.9.9.2 127.0.0.1 7000 4",
            ],
        ),
        # Cut to four bytes it would be 10.9.9.3.
        (["0.0.0.0"], "fd00::a09:903", "10.9.9.1", [], ["fd00::a09:903 10.9.9.1 7000 4"]),
        (["10.9.9.1"], "10.9.9.2", "10.9.9.1", ["10.9.9.2 10.9.9.1 7000 4"], ["10.9.9.2 10.9.9.7 7000 4"]),
        (
            ["::", "dual-stack"],
            "10.9.9.2",
            "10.9.9.1",
            ["10.9.9.2 10.9.9.1 7000 6"],
            [
                f"{CLIENT_ALIAS} 10.9.9.1 7000 6",
                f"10.9.9.2 {SERVER_ALIAS} 7000 6",
                f"{CLIENT_ALIAS} {SERVER_ALIAS} 7000 6",
                "10.9.9.2 :: 7000 6",
            ],
        ),
        # Siblings may dial and show loopback addresses, too.
        (
            ["0.0.0.0"],
            "10.9.9.1",
            "127.0.0.1",
            ["127.0.0.1 127.0.0.1 7000 4", "127.0.0.1 127.0.0.2 7000 4", "10.9.9.1 10.9.9.1 7000 4"],
            ["10.9.9.1 10.9.9.7 7000 4", "10.9.9.2 10.9.9.1 7000 4"],
        ),
        (
            ["127.0.0.1"],
            "10.9.9.1",
            "127.0.0.1",
            ["127.0.0.1 127.0.0.1 7000 4"],
            ["127.0.0.1 127.0.0.2 7000 4", "10.9.9.1 10.9.9.1 7000 4"],
        ),
        (["10.9.9.1"], "10.9.9.1", "127.0.0.1", ["127.0.0.1 127.0.0.1 7000 4"], ["127.0.0.1 10.9.9.7 7000 4"]),
        (["::", "dual-stack"], "10.9.9.1", "::1", [f"{SERVER_ALIAS} {SERVER_ALIAS} 7000 6"], ["::1 127.0.0.1 7000 6"]),
        (["::"], "10.9.9.1", "::1", ["::1 ::1 7000 6"], ["127.0.0.1 127.0.0.1 7000 6", "10.9.9.1 10.9.9.1 7000 6"]),
    ],
)
def test_what_a_capability_connects_under_has_to_be_true(
    switch: Switch, listens: list[str], client: str, dials: str, true: list[str], forged: list[str]
) -> None:
    """The client's own address, and one that it may have dialled to get there."""
    switch.spawn("--ip", "10.9.9.1", "--name", "server", PYTHON, "-c", GREETER, *listens)
    switch.wait_for("server:7000")
    hostile = ["--ip", client, "env", "-u", "LD_PRELOAD", PYTHON, "-c", FORGER, dials, client]
    said = switch.run(*hostile, input="".join(f"{name}\n" for name in [*true, *forged])).stdout.split()
    assert said == ["in"] * len(true) + ["closed"] * len(forged)


# --- strangers: processes of the host


COUNTER = """
import socket
s = socket.create_server(("", 7000))
while True:
    c, peer = s.accept()
    print("took", peer, flush=True)
    c.sendall(b"in")
"""

# Connects once by the trap handler, then by capability; keeps the capabilities, and says who it is.
HOLDER = """
import os, socket, sys
held = [socket.create_connection(("server", 7000)) for _ in range(4)]
print(os.getpid(), flush=True)
sys.stdin.read()
"""

# Connects to whatever descriptors a process has; for each that takes the connection, what is heard there.
INTRUDER = """
import os, socket, sys
for pid in sys.argv[1:]:
    for fd in os.listdir(f"/proc/{pid}/fd"):
        for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET, socket.SOCK_DGRAM):
            with socket.socket(socket.AF_UNIX, kind) as intruder:
                intruder.settimeout(20)
                try:
                    intruder.connect(f"/proc/{pid}/fd/{fd}")
                    if kind == socket.SOCK_STREAM:
                        print("heard", intruder.recv(99), flush=True)
                except OSError:
                    pass
"""


@pytest.mark.root
def test_a_stranger_reaches_nothing_by_the_descriptors_of_others(switch: Switch) -> None:
    """The listeners' sockets, as the trap handler and a client with capabilities have them (proc(5), /proc/PID/fd)."""
    server = switch.spawn("--ip", "10.9.9.1", "--name", "server", PYTHON, "-c", COUNTER)
    switch.wait_for("server:7000")
    holder = switch.spawn(PYTHON, "-c", HOLDER, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout
    pid = holder.stdout.readline().strip()
    log: Path = server.log  # type: ignore[attr-defined]
    eventually(lambda: log.read_text().count("took") == 4)
    pids = [str(switch.server.pid), pid]
    for command in (
        [PYTHON, "-c", INTRUDER, *pids],
        [*switch.appswitch, "spawn", "--no-netns", PYTHON, "-c", INTRUDER, *pids],
    ):
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=switch.environment)
        heard = done.stdout.splitlines()
        assert len(heard) >= 2, "the kernel lets them connect"
        assert set(heard) == {"heard b''"}, "but they are shut out"
    assert log.read_text().count("took") == 4, "and no accept has seen them"
    holder.communicate(timeout=30)


@pytest.mark.root
def test_another_user_gets_at_nothing(switch: Switch) -> None:
    """The directory of the listeners, the control socket, the descriptors of the trap handler."""
    code = """
import os, socket, sys
trap, handler = sys.argv[1:]
for attempt in (
    lambda: os.listdir(f"{trap}.state/listeners"),
    lambda: os.listdir(f"/proc/{handler}/fd"),
    lambda: socket.socket(socket.AF_UNIX).connect(f"{trap}.control"),
):
    try:
        attempt()
        print("got in")
    except PermissionError:
        print("refused")
"""
    python = shutil.which("python3", path="/usr/bin") or PYTHON
    command = [python, "-W", "ignore", "-c", code, str(switch.trap), str(switch.server.pid)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, user=65534, group=65534, cwd="/")
    assert done.stdout.split() == ["refused"] * 3


# --- apps that would be others

# Asks for a connection, with a token and a source address of its choice; the errno.
CLAIMANT = """
import os, socket, sys
from ipaddress import ip_address
from appswitch._wire import ffi, lib
from appswitch.wire import trap
from appswitch.wire.addresses import pack_ip

token, source = sys.argv[1:]
channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
channel.connect(os.environ["APPSWITCH_SOCKET"])
request = ffi.new("struct as_request *")
request.magic, request.op = lib.AS_MAGIC, lib.AS_CONNECT
ffi.memmove(request.token, bytes.fromhex(token), len(token) // 2)
ffi.memmove(request.remote.ip, pack_ip(ip_address("10.9.9.1")), 16)
request.remote.port, request.remote.family = 7000, 4
if source:
    request.flags = lib.AS_BOUND
    ffi.memmove(request.local.ip, pack_ip(ip_address(source)), 16)
    request.local.family = 4
channel.send(bytes(ffi.buffer(request, trap.HEADER)))
print(int.from_bytes(channel.recv(4096)[4:8], "little"))
"""


def test_an_app_can_not_be_another_by_its_token_or_address(switch: Switch) -> None:
    switch.spawn("--ip", "10.9.9.1", "--name", "server", "--tag", "grp=2", PYTHON, "-c", GREETER, "0.0.0.0")
    switch.wait_for("server:7000")
    show = "import os, sys; print(os.environ['APPSWITCH_APP'], flush=True); sys.stdin.read()"
    friend = ["--no-netns", "--ip", "10.9.9.3", "--tag", "grp=2", PYTHON, "-c", show]
    holder = switch.spawn(*friend, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout
    token = holder.stdout.readline().strip()
    assert len(token) == 32

    def claims(tags: list[str], token: str, source: str) -> int:
        command = ["env", "-u", "LD_PRELOAD", PYTHON, "-c", CLAIMANT, token, source]
        return int(switch.run("--ip", "10.9.9.2", *tags, *command).stdout)

    outside = ["--tag", "grp=1"]
    assert claims(outside, "", "") == errno.ECONNREFUSED
    assert claims(outside, token, "") == errno.ECONNREFUSED, "its namespace tells who it is"
    assert claims(["--tag", "grp=2"], "", "") == 0
    for address in ("10.9.9.3", "10.9.9.1", "192.0.2.1"):
        assert claims(["--tag", "grp=2"], "", address) == errno.EADDRNOTAVAIL
    assert claims(["--tag", "grp=2"], "", "127.0.0.1") == errno.EINVAL
    holder.communicate(timeout=30)


# --- the control socket, from inside an app


@pytest.mark.parametrize("flags", [[], ["--no-netns"]])
@pytest.mark.parametrize("nested", [[], ["unshare", "-rn"]], ids=["app", "namespace in it"])
def test_an_app_makes_no_other_app(switch: Switch, flags: list[str], nested: list[str]) -> None:
    command = [*switch.appswitch, "spawn", *flags, "--name", "other", "true"]
    done = switch.run("--name", "app", *nested, *command, check=False)
    assert done.returncode == 125, done
    assert "this can't be done from inside" in done.stderr
    assert "hint: " in done.stderr


def test_nor_by_a_socket_that_the_trap_handler_gave_it(switch: Switch) -> None:
    """A bound socket is of the host's network namespace, and so is what it connects to."""
    bound = frame_of_bind().hex()
    code = (
        "import os, socket; trap = os.environ['APPSWITCH_SOCKET']\n"
        "channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); channel.connect(trap)\n"
        f"channel.send(bytes.fromhex('{bound}'))\n"
        "fd = socket.recv_fds(channel, 4096, 1)[1][0]\n"
        "given = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=fd); given.settimeout(30)\n"
        "given.connect(trap + '.control'); given.sendall(b'{\"call\": \"ticket\"}\\n'); print(given.recv(999).decode())"
    )
    done = switch.run("--name", "app", "env", "-u", "LD_PRELOAD", PYTHON, "-c", code)
    assert "foreign-namespace" in done.stdout


def frame_of_bind() -> bytes:
    from appswitch._wire import ffi, lib

    request = ffi.new("struct as_request *")
    request.magic, request.op = lib.AS_MAGIC, lib.AS_BIND
    request.local.family = 6
    return bytes(ffi.buffer(request, trap.HEADER))
