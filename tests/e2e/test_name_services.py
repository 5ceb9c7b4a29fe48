"""Name services of the host that have a Unix socket: no network namespace hides them, and they know no app."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.harness import Switch

PYTHON = sys.executable

# Everything that is written under /run, and nscd's cache, is the test's own: in a mount namespace.
NSCD = """
set -e
mount -t tmpfs none /run && mount -t tmpfs none /var/cache/nscd
mkdir /run/nscd
nscd -F & nscd=$!
for _ in $(seq 200); do [ -S /run/nscd/socket ] && break; sleep 0.05; done
[ -S /run/nscd/socket ]
"$@" || true
kill $nscd
wait
"""
RESOLVED = """
mount -t tmpfs none /run
mkdir -p /run/systemd/resolve
touch /run/systemd/resolve/io.systemd.Resolve
exec "$@"
"""
ASK = """
import socket
print(socket.gethostbyname("web"), socket.getaddrinfo("web.appswitch.local", 80)[0][4])
print(*socket.getnameinfo(("10.9.9.1", 80), socket.NI_NUMERICSERV), *socket.getnameinfo(("10.9.9.1", 80), 3))
print(*socket.gethostbyaddr("10.9.9.1"))
"""
ANSWERS = "10.9.9.1 ('10.9.9.1', 80)\nweb.appswitch.local 80 10.9.9.1 80\nweb.appswitch.local [] ['10.9.9.1']\n"


def ask(switch: Switch, around: str, *flags: str, code: str = ASK) -> str:
    command = [*switch.appswitch, "spawn", *flags, PYTHON, "-c", code]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", around, "sh", *command],
        env=switch.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return done.stdout or done.stderr


@pytest.mark.root
@pytest.mark.program("nscd", "unshare")
@pytest.mark.parametrize("flags", [[], ["--no-netns"]], ids=["netns", "no netns"])
def test_nscd(switch: Switch, flags: list[str]) -> None:
    switch.spawn("--name", "web", "--ip", "10.9.9.1", PYTHON, "-m", "http.server", "80")
    switch.wait_for("web:80")
    assert ask(switch, NSCD, *flags) == ANSWERS


@pytest.mark.root
@pytest.mark.program("unshare")
def test_where_systemd_resolved_may_be_asked_the_trap_handler_is_asked_first(switch: Switch) -> None:
    """The answer shows it: libc is called with the address in the name's place."""
    switch.spawn("--name", "web", "--ip", "10.9.9.1", PYTHON, "-m", "http.server", "80")
    switch.wait_for("web:80")
    code = "import socket; print(socket.getaddrinfo('web', 80, flags=socket.AI_CANONNAME)[0][3])"
    assert switch.run(PYTHON, "-c", code).stdout == "web\n"
    assert ask(switch, RESOLVED) == ANSWERS
    assert ask(switch, RESOLVED, code=code) == "10.9.9.1\n"


def test_getnameinfo_without_a_namespace(switch: Switch) -> None:
    switch.spawn("--name", "web", "--ip", "10.9.9.1", PYTHON, "-m", "http.server", "80")
    switch.wait_for("web:80")
    assert switch.run("--no-netns", PYTHON, "-c", ASK).stdout == ANSWERS
    code = """
import ctypes, socket
address = bytes([2, 0, 0, 80, 10, 9, 9, 1]) + bytes(8)
host = ctypes.create_string_buffer(64)
for room in (20, 19):
    error = ctypes.CDLL(None).getnameinfo(address, 16, host, room, None, 0, 0)
    print(error == socket.EAI_OVERFLOW if error else host.value.decode())
print(ctypes.CDLL(None).getnameinfo(address[:8], 8, host, 64, None, 0, 0) == socket.EAI_FAMILY)
"""
    said = switch.run("--no-netns", PYTHON, "-c", code).stdout.splitlines()
    assert said == ["web.appswitch.local", "True", "True"]
