"""Many datagrams, large ones, lost ones; servers that come and go."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.datagrams import ASK, PYTHON, SERVER, run, serve
from tests.harness import PATIENCE, Switch, eventually, has_ended


def test_each_instance_gets_its_share_of_connections(switch: Switch) -> None:
    for label in "ab":
        serve(switch, "--name", "web", label=label)
    eventually(lambda: len(switch.rows("services")) == 2)
    code = """
for _ in range(100):
    c = udp()
    c.connect(("web", 7000))
    labels = {ask(c, b"x")[0][0] for _ in range(3)}
    assert len(labels) == 1, "a connection stays with its instance"
    print(*labels)
"""
    counts = Counter(run(switch, code=code))
    assert set(counts) == {"a", "b"}
    assert all(count >= 40 for count in counts.values()), counts


# Asks for a line of standard input, until someone answers; says who, and with which socket.
PATIENT = (
    ASK
    + """
c = udp()
c.settimeout(0.1)
to = ("10.9.9.1", 7000)
if sys.argv[1] == "connected":
    c.connect(to)
    to = None
for line in sys.stdin:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            (label, data, seen, _), source = ask(c, line.encode(), to)
            if data.decode() == line:
                print(label, source, seen == c.getsockname() or seen[1] == c.getsockname()[1], flush=True)
                break
        except (TimeoutError, ConnectionRefusedError):
            time.sleep(0.01)
    else:
        print("nobody", flush=True)
"""
)


@pytest.mark.parametrize("how", ["connected", "unconnected"])
def test_a_server_that_dies_and_comes_back(switch: Switch, how: str) -> None:
    """The client's socket isn't bound to the one that it met first (cilium #12859)."""

    def start(label: str) -> subprocess.Popen[str]:
        server = switch.spawn("--ip", "10.9.9.1", "--name", "web", PYTHON, "-c", SERVER, "0.0.0.0", "7000", label)
        switch.wait_for("web:7000")
        return server

    def kill(server: subprocess.Popen[str], left: int) -> None:
        server.kill()
        server.wait()
        eventually(lambda: len(switch.rows("services")) == left)

    server = start("0")
    client = switch.spawn("--ip", "10.9.9.2", PYTHON, "-c", PATIENT, how, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert client.stdin
    assert client.stdout

    def asked(text: str) -> str:
        assert client.stdin
        assert client.stdout
        client.stdin.write(f"{text}\n")
        client.stdin.flush()
        return client.stdout.readline()

    assert asked("first") == "0 ('10.9.9.1', 7000) True\n"
    for i in (1, 2, 3):
        kill(server, left=0)
        server = start(str(i))
        assert asked(f"{i}") == f"{i} ('10.9.9.1', 7000) True\n"
    # Another one takes over without a pause.
    other = switch.spawn("--ip", "10.9.9.1", "--name", "web", PYTHON, "-c", SERVER, "0.0.0.0", "7000", "other")
    eventually(lambda: len(switch.rows("services")) == 2)
    kill(server, left=1)
    assert asked("last") == "other ('10.9.9.1', 7000) True\n"
    other.kill()
    client.stdin.close()
    assert client.wait(PATIENCE) == 0
    client.stdout.close()


def test_the_largest_datagram(switch: Switch) -> None:
    echo = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 7000))
while True:
    s.sendto(*s.recvfrom(70000))
"""
    switch.spawn("--name", "echo", PYTHON, "-c", echo)
    switch.wait_for("echo:7000")
    code = """
import random
c, connected = udp(), udp()
connected.connect(("echo", 7000))
to = connected.getpeername()
for size in (0, 1, 1472, 1473, 9000, 40000, 65506, 65507):
    data = random.randbytes(size)
    c.sendto(data, to)
    assert c.recvfrom(70000) == (data, to), size
    connected.send(data)
    assert connected.recv(70000) == data, size
for call in (lambda: c.sendto(bytes(65508), to), lambda: connected.send(bytes(65508))):
    try:
        call()
    except OSError as error:
        print(errno.errorcode[error.errno])
"""
    assert run(switch, code=code) == ["EMSGSIZE", "EMSGSIZE"]


@pytest.mark.parametrize("how", ["connected", "unconnected"])
def test_a_full_queue_does_not_hold_up_the_sender(switch: Switch, how: str) -> None:
    server = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 7000))
sys.stdin.readline()
s.setblocking(False)
count = last = 0
try:
    while True:
        number = int(s.recv(9999)[:8])
        assert number > last, (number, last)
        count, last = count + 1, number
except BlockingIOError:
    print(count, flush=True)
s.setblocking(True)
print(s.recv(9999)[:5].decode(), flush=True)
"""
    process = switch.spawn("--name", "slow", PYTHON, "-c", server, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin
    assert process.stdout
    switch.wait_for("slow:7000")
    code = """
c = udp()
c.connect(("slow", 7000))
to = c.getpeername()
if sys.argv[1] == "unconnected":
    c = udp()
for i in range(1, 20001):
    data = b"%08d" % i + bytes(992)
    c.send(data) if sys.argv[1] == "connected" else c.sendto(data, to)
print("sent")
"""
    assert run(switch, code=code, arguments=(how,)) == ["sent"]
    process.stdin.write("\n")
    process.stdin.flush()
    assert 0 < int(process.stdout.readline()) < 15000
    assert run(switch, code="udp().sendto(b'after', ('slow', 7000))") == []
    assert process.stdout.readline() == "after\n", "there is room again"
    process.stdin.close()
    process.stdout.close()


@pytest.mark.parametrize("how", ["connected", "unconnected"])
def test_a_burst_mostly_arrives(switch: Switch, how: str) -> None:
    server = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 7000))
count = 0
while s.recv(200) != b"end":
    count += 1
print(count)
"""
    process = switch.spawn("--name", "sink", PYTHON, "-c", server)
    switch.wait_for("sink:7000")
    code = (
        """
c = udp()
c.connect(("sink", 7000))
to = c.getpeername()
if sys.argv[1] == "unconnected":
    c = udp()
send = c.send if sys.argv[1] == "connected" else lambda data: c.sendto(data, to)
for i in range(10000):
    send(b"%0100d" % i)
    if i % 50 == 49:
        time.sleep(0.001)  # paced, as a burst that no one reads is lost anywhere
try:
    while True:
        send(b"end")
        time.sleep(0.01)
except OSError:
    print("gone")
"""
        if how == "connected"
        else """
to = socket.getaddrinfo("sink", 7000, type=socket.SOCK_DGRAM)[0][4]
c = udp()
for i in range(10000):
    c.sendto(b"%0100d" % i, to)
    if i % 50 == 49:
        time.sleep(0.001)
for _ in range(20):
    with __import__("contextlib").suppress(OSError):
        c.sendto(b"end", to)
    time.sleep(0.05)
print("gone")
"""
    )
    assert run(switch, code=code, arguments=(how,)) == ["gone"]
    assert process.wait(PATIENCE) == 0, switch.logs()
    assert int(process.log.read_text()) > 5000  # type: ignore[attr-defined]


def test_in_an_epoll_set_before_connect(switch: Switch) -> None:
    serve(switch, "--ip", "10.9.9.1", "--name", "server")
    switch.wait_for("server:7000")
    code = """
import select
for edge in (0, select.EPOLLET):
    for connected in (True, False):
        c, poller = udp(), select.epoll()
        poller.register(c, select.EPOLLIN | edge)
        if connected:
            c.connect(("10.9.9.1", 7000))
        for _ in range(3):
            c.send(b"x") if connected else c.sendto(b"x", ("10.9.9.1", 7000))
            assert poller.poll(10) == [(c.fileno(), select.EPOLLIN)]
            if edge:
                assert poller.poll(0) == []
            assert eval(c.recv(999))[2][0] == "10.9.9.2"
            assert poller.poll(0) == []
        poller.unregister(c)
print("fine")
"""
    assert run(switch, "--ip", "10.9.9.2", code=code) == ["fine"]


def test_a_refused_client_may_try_again(switch: Switch) -> None:
    """A UDP connect's error is no end (mirrord #436): refused first, answered when the server has come."""
    switch.spawn("--ip", "10.9.9.1", "--name", "late", "sleep", "60")
    eventually(lambda: switch.rows("ps"))
    client = switch.spawn(
        "--ip", "10.9.9.2", PYTHON, "-c", PATIENT, "connected", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert client.stdin
    client.stdin.write("hello\n")
    client.stdin.flush()
    serve(switch, "--ip", "10.9.9.1", "--name", "late", label="late")
    assert client.communicate(timeout=PATIENCE)[0] == "late ('10.9.9.1', 7000) True\n"


def test_a_connected_socket_that_names_its_peer(switch: Switch) -> None:
    serve(switch, "--ip", "10.9.9.1", "--name", "server")
    switch.wait_for("server:7000")
    code = """
to = ("10.9.9.1", 7000)
c = udp()
c.connect(to)
for _ in range(2):
    assert ask(c, b"x", to) == ask(c, b"x")
    c.sendmsg([b"x"], [], 0, to)
    assert eval(c.recv(999))[1] == b"x"
print("fine")
"""
    assert run(switch, "--ip", "10.9.9.2", code=code) == ["fine"]


def test_connected_to_one_port_and_then_to_another(switch: Switch) -> None:
    two = SERVER.replace("s = ", "port += __import__('os').fork() == 0\ns = ", 1)
    switch.spawn("--ip", "10.9.9.1", "--name", "server", PYTHON, "-c", two, "0.0.0.0", "7000", "")
    switch.wait_for("server:7000", "server:7001")
    code = """
c = udp()
for port in (7000, 7001, 7000):
    c.connect(("10.9.9.1", port))
    print(ask(c, b"x")[1][1])
"""
    assert run(switch, "--ip", "10.9.9.2", code=code) == ["7000", "7001", "7000"]


def test_many_clients_of_one_server(switch: Switch) -> None:
    """Every one of 500 sockets gets its own answer, connected or not, all at once."""
    serve(switch, "--ip", "10.9.9.1", "--name", "server")
    switch.wait_for("server:7000")
    code = """
clients = [udp() for _ in range(500)]
for i, c in enumerate(clients):
    if i % 2:
        c.connect(("10.9.9.1", 7000))
        c.send(b"%d" % i)
    else:
        c.sendto(b"%d" % i, ("10.9.9.1", 7000))
    if i % 50 == 49:
        for k in range(i - 49, i + 1):
            label, data, seen, at = eval(clients[k].recv(999))
            assert int(data) == k and seen[1] == clients[k].getsockname()[1], (k, data, seen)
print(len({c.getsockname()[1] for c in clients}))
"""
    assert run(switch, "--ip", "10.9.9.2", code=code) == ["500"]


def _homes_of(switch: Switch) -> Iterator[str]:
    for thread in Path(f"/proc/{switch.server.pid}/task").iterdir():  # a child is of the thread that made it
        for child in (thread / "children").read_text().split():
            if b"appswitch.host.home" in Path(f"/proc/{child}/cmdline").read_bytes():
                yield child


def test_a_home_that_is_killed_is_made_again(switch: Switch) -> None:
    """What stands in for the namespace of an app that has none (edge/homes.py)."""
    serve(switch, "--ip", "10.9.9.1", "--name", "server")
    switch.wait_for("server:7000")
    code = """
to = ("10.9.9.1", 7000)
print(ask(udp(), b"before", to)[0][1], flush=True)
sys.stdin.readline()
print(ask(udp(), b"after", to)[0][1], flush=True)
"""
    client = switch.spawn(
        "--no-netns", "--ip", "10.9.9.2", PYTHON, "-c", ASK + code, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert client.stdin is not None
    assert client.stdout is not None
    assert client.stdout.readline() == "b'before'\n"
    homes = list(_homes_of(switch))
    assert len(homes) == 1
    os.kill(int(homes[0]), signal.SIGKILL)
    eventually(lambda: has_ended(int(homes[0])))
    client.stdin.write("\n")
    client.stdin.flush()
    assert client.stdout.readline() == "b'after'\n"
    assert client.wait(PATIENCE) == 0
    client.stdin.close()
    client.stdout.close()
