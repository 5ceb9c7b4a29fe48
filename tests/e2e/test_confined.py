"""A hostile program with a socket of its host's network namespace: it gets nowhere by it but where it may go.

It makes its system calls itself, past the shim: disconnects the socket (AF_UNSPEC in connect(2)) and connects to what
listens on the host's loopback.
"""

from __future__ import annotations

import platform
import subprocess

import pytest

from tests.e2e.egress import PYTHON, SERVER, World, shared, via, world
from tests.harness import PATIENCE, eventually
from tests.hosts import Host

__all__ = ["shared", "world"]  # fixtures
pytestmark = [
    pytest.mark.root,
    pytest.mark.program("serf", "ip", "nsenter"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="its system call is machine code"),
]

SECRET = """
import socket
s = socket.create_server(("127.0.0.1", 9000))
while True: s.accept()[0].close()
"""
HOSTILE = """
import ctypes, errno, mmap, select, socket, struct, sys
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(b"\\xb8\\x2a\\0\\0\\0\\x0f\\x05\\xc3")  # mov eax, SYS_connect; syscall; ret
raw = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_int)(
    ctypes.addressof(ctypes.c_char.from_buffer(code)))
how, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
if how == "accept":
    s = socket.create_server((host, port))
    print("listening", flush=True)
    s, _ = s.accept()
    s.sendall(b"hello")
else:
    s = socket.socket()
    s.setblocking(how == "connect")
    s.connect_ex((host, port))
    select.select([], [s], [])
    s.setblocking(True)
    assert s.recv(5) == b"hello"
v4 = struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", 9000, socket.inet_aton("127.0.0.1"))
v6 = struct.pack("=H", socket.AF_INET6) + struct.pack("!HI16sI", 9000, 0, socket.inet_pton(10, "::ffff:127.0.0.1"), 0)
s.settimeout(None)
s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 1, 0))
assert raw(s.fileno(), bytes(16), 16) == 0
said = -raw(s.fileno(), v4, len(v4))
if said in (errno.EAFNOSUPPORT, errno.EINVAL):  # it is the host's IPv6
    said = -raw(s.fileno(), v6, len(v6))
print(errno.errorcode.get(said, said), flush=True)
"""
GREET = """
import socket, sys
s = socket.create_server(("", int(sys.argv[1])))
while True:
    c, _ = s.accept()
    c.sendall(b"hello")
"""
UNANSWERED = "EINPROGRESS"  # SO_SNDTIMEO in socket(7)


def has_a_secret(host: Host) -> None:
    host.namespace.start(PYTHON, "-c", SECRET, log=host.directory / "secret.log")
    eventually(lambda: host.namespace.run("ss", "-Hltn", "sport = :9000"))


@pytest.fixture(scope="module")
def secrets(shared: World) -> None:
    for host in shared.net.hosts:
        has_a_secret(host)


def hostile(host: Host, how: str, to: str, port: int) -> str:
    return host.run("--name", "mallory", PYTHON, "-c", HOSTILE, how, to, str(port), timeout=PATIENCE).stdout.strip()


@pytest.mark.usefixtures("secrets")
@pytest.mark.parametrize("how", ["connect", "don't block"])
def test_to_the_outside(world: World, how: str) -> None:
    """On a gateway, directly; by an external server's name, too; and on the inner host, by a gateway."""
    world.outside.start(PYTHON, "-c", GREET, "7000")
    world.outside.listens(7000)
    world.g1.command("external", "add", "greeter", f"7000:{SERVER}:7000")
    try:
        assert hostile(world.g1, how, SERVER, 7000) == UNANSWERED
        assert hostile(world.g1, how, "greeter", 7000) == UNANSWERED
    finally:
        world.g1.command("external", "rm", "greeter")
    assert hostile(world.inner, how, SERVER, 7000) == "ECONNREFUSED", "nobody is there"


@pytest.mark.usefixtures("secrets")
@pytest.mark.parametrize("how", ["connect", "don't block"])
def test_the_client_of_another_host(world: World, how: str) -> None:
    world.g1.spawn("--name", "greeter", PYTHON, "-c", GREET, "7000")
    world.inner.wait_for("greeter:7000")
    assert hostile(world.inner, how, "greeter", 7000) == UNANSWERED


CALL = "import socket, sys; s = socket.create_connection((sys.argv[1], int(sys.argv[2]))); s.recv(5); s.recv(1)"


@pytest.mark.usefixtures("secrets")
@pytest.mark.parametrize("who", ["of another host", "outside"])
def test_the_server(world: World, who: str) -> None:
    expose = ["--expose", "80:g1:8080"] if who == "outside" else []
    code = [PYTHON, "-c", HOSTILE, "accept", "0.0.0.0", "80"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    server = world.g1.spawn("--name", "mallory", *expose, *code, **pipes)
    assert server.stdout
    with server.stdout:
        assert server.stdout.readline() == "listening\n"
        world.inner.wait_for("mallory:80")
        if who == "outside":
            world.outside.start(PYTHON, "-c", CALL, via(world.g1), "8080")
        else:
            world.inner.spawn("--name", "caller", PYTHON, "-c", CALL, "mallory", "80")
        assert server.stdout.readline().strip() == UNANSWERED
