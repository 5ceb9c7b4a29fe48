"""TCP between hosts: real programs on two or three of them, each host a network namespace with its own trap handler."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from ast import literal_eval
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.e2e.test_real_programs import iperf2, nginx_config, postgres_programs
from tests.harness import PATIENCE, eventually, stop
from tests.hosts import Host, Network, network

pytestmark = [pytest.mark.root, pytest.mark.program("serf")]

PYTHON = sys.executable
WEB = ["--name", "web", "--ip", "10.9.9.1"]
CLIENT = ["--name", "client", "--ip", "10.9.9.2"]

# Tells both names of each connection, to it.
ECHO = """
import socket, sys
s = socket.create_server(("", int(sys.argv[1])), backlog=100)
while True:
    c, peer = s.accept()
    assert c.getpeername() == peer
    c.sendall(repr((peer, c.getsockname(), *sys.argv[2:])).encode())
    c.close()
"""
# Prints what it sees of each connection, and what the server says.
ASK = """
import socket, sys
for _ in range(int(sys.argv[3])):
    c = socket.create_connection((sys.argv[1], int(sys.argv[2])))
    seen = c.getsockname(), c.getpeername()
    print((seen, eval(c.recv(200))))
"""


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Host, Host]]:
    with network() as made:
        first, second = made.serve("a", "b")
        yield first, second


@pytest.fixture
def hosts(pair: tuple[Host, Host]) -> Iterator[tuple[Host, Host]]:
    """Two hosts, on which nothing runs but what the test starts."""
    yield pair
    for host in pair:
        host.end_apps()
    for host in pair:
        eventually(lambda host=host: not host.rows("ps"))


@pytest.fixture
def net() -> Iterator[Network]:
    with network() as made:
        yield made


def ask(host: Host, *flags: str, name: str = "web", port: int = 80, times: int = 1) -> list[tuple[Any, Any]]:
    """Of each connection: the two names that the client sees, and what the server says."""
    done = host.run(*flags, PYTHON, "-c", ASK, name, str(port), str(times))
    return [literal_eval(line) for line in done.stdout.splitlines()]


# --- real programs


@pytest.mark.program("nginx", "curl", "wrk")
def test_nginx(hosts: tuple[Host, Host]) -> None:
    a, b = hosts
    b.spawn(*WEB, "nginx", "-c", nginx_config(b))
    a.wait_for("web:80")
    assert a.run(*CLIENT, "curl", "-s", "http://web/").stdout == "from 10.9.9.1 to 10.9.9.2\n"
    done = a.run(*CLIENT, "wrk", "-t", "2", "-c", "20", "-d", "2s", "http://web/")
    assert "Socket errors" not in done.stdout
    assert int(re.findall(r"(\d+) requests in", done.stdout)[0]) > 1000
    done = a.run(*CLIENT, "wrk", "-t", "2", "-c", "10", "-d", "1s", "-H", "Connection: close", "http://web/")
    assert int(re.findall(r"(\d+) requests in", done.stdout)[0]) > 50


@pytest.mark.program("nginx", "curl")
def test_nginx_as_a_proxy(hosts: tuple[Host, Host]) -> None:
    """It puts the upstream's socket into its epoll set before its connect, which doesn't block."""
    a, b = hosts
    (b.directory / "hello").write_text("hello\n" * 100000)
    b.spawn("--name", "back", PYTHON, "-m", "http.server", "8000", "--directory", str(b.directory))
    a.wait_for("back:8000")
    config = nginx_config(a, "server { listen 81; location / { proxy_pass http://back:8000; } }")
    a.spawn("--name", "front", "nginx", "-c", config)
    b.wait_for("front:81")
    for _ in range(5):
        assert b.run("curl", "-sS", "http://front:81/hello").stdout == "hello\n" * 100000


@pytest.mark.program("redis-server", "redis-cli", "redis-benchmark")
def test_redis(hosts: tuple[Host, Host]) -> None:
    a, b = hosts
    b.spawn("--name", "redis", "redis-server", "--save", "", "--protected-mode", "no")
    a.wait_for("redis:6379")
    assert a.run("redis-cli", "-h", "redis", "set", "k", "v").stdout == "OK\n"
    done = a.run("redis-benchmark", "-h", "redis", "-c", "50", "-n", "20000", "-t", "get", "--csv", timeout=90)
    assert re.search(r'"GET","[1-9]', done.stdout), done
    commands = "".join(f"SET key:{i} {i}\r\n" for i in range(100_000))
    done = a.run("redis-cli", "-h", "redis", "--pipe", input=commands, timeout=90)
    assert "errors: 0, replies: 100000" in done.stdout


@pytest.mark.program("psql")
def test_postgres(hosts: tuple[Host, Host]) -> None:
    a, b = hosts
    programs, data = postgres_programs(), b.directory / "data"
    data.mkdir()
    os.chown(data, 65534, -1)
    b.run("--user", "nobody", str(programs / "initdb"), "-D", str(data), "-A", "trust", "-U", "nobody")
    with (data / "pg_hba.conf").open("a") as hba:
        hba.write("host all all 10.9.9.8/32 trust\n")
    server = [str(programs / "postgres"), "-D", str(data), "-h", "*", "-k", str(data)]
    b.spawn("--user", "nobody", "--name", "db", "--ip", "10.9.9.7", *server)
    a.wait_for("db:5432")
    query = ["psql", "-h", "db", "-U", "nobody", "-d", "postgres", "-Atc"]
    eventually(lambda: a.run("--ip", "10.9.9.8", *query, "select 1", check=False).stdout == "1\n")
    who = "select inet_client_addr(), inet_server_addr(), inet_server_port()"
    assert a.run("--ip", "10.9.9.8", *query, who).stdout == "10.9.9.8|10.9.9.7|5432\n"
    assert "no pg_hba.conf entry" in a.run("--ip", "10.9.9.99", *query, "select 1", check=False).stderr
    inside = ["psql", "-h", "127.0.0.1", "-U", "nobody", "-d", "postgres", "-Atc", "select inet_client_addr()"]
    assert a.run("--ip", "10.9.9.7", *inside).stdout == "127.0.0.1\n", "a sibling is trusted, on another host, too"


@pytest.mark.program("iperf")
@pytest.mark.parametrize("flags", [[], ["-P", "4"], ["-d"]], ids=["one", "parallel", "both ways"])
def test_iperf2(hosts: tuple[Host, Host], flags: list[str]) -> None:
    a, b = hosts
    b.spawn("--name", "server", "iperf", "-s")
    a.wait_for("server:5001")
    done = a.run("--name", "client", *iperf2("-c", "server", *flags), timeout=60)
    assert len(re.findall(r"[GM]bits/sec", done.stdout)) >= (5 if "-P" in flags else 1 if not flags else 2), done
    assert "failed" not in done.stdout + done.stderr


ASYNCIO = """
import asyncio
async def one():
    reader, writer = await asyncio.open_connection("web", 80)
    names = writer.get_extra_info("sockname"), writer.get_extra_info("peername")
    said = eval(await reader.read())
    assert said[:2] == names, (said, names)
    writer.close()
async def main():
    await asyncio.gather(*(one() for _ in range(100)))
asyncio.run(main())
"""


def test_asyncio(hosts: tuple[Host, Host]) -> None:
    """A hundred connects at once, none of which blocks."""
    a, b = hosts
    b.spawn(*WEB, PYTHON, "-c", ECHO, "80")
    a.wait_for("web:80")
    a.run(*CLIENT, PYTHON, "-c", ASYNCIO)


CROWD = """
import socket, threading
failed = []
def connect():
    try:
        with socket.create_connection(("10.9.9.1", 80)) as c:
            assert c.recv(100)
    except OSError as error:
        failed.append(error)
threads = [threading.Thread(target=connect) for _ in range(400)]
for each in threads:
    each.start()
for each in threads:
    each.join()
print(failed)
"""


def test_a_crowd(hosts: tuple[Host, Host]) -> None:
    """Trap handlers that are busy are not taken for dead ones."""
    a, b = hosts
    b.spawn(*WEB, PYTHON, "-c", ECHO.replace("backlog=100", "backlog=4096"), "80")
    a.wait_for("web:80")
    assert a.run(*CLIENT, PYTHON, "-c", CROWD, timeout=60).stdout == "[]\n"


NODE = """
require("http").createServer((request, response) => response.end(JSON.stringify(
  [request.socket.localAddress, request.socket.localPort, request.socket.remoteAddress]))).listen(3000);
"""
FETCH = """
Promise.all([...Array(20)].map(async () => await (await fetch("http://api:3000/")).text()))
  .then(texts => console.log(JSON.stringify([...new Set(texts)])));
"""


@pytest.mark.program("node")
def test_node(hosts: tuple[Host, Host]) -> None:
    a, b = hosts
    b.spawn("--name", "api", "--ip", "10.9.9.5", "node", "-e", NODE)
    a.wait_for("api:3000")
    (text,) = json.loads(a.run("--ip", "10.9.9.6", "node", "-e", FETCH).stdout)
    assert json.loads(text) == ["::ffff:10.9.9.5", 3000, "::ffff:10.9.9.6"]


# --- what a connection is

BACK = """
import socket
s = socket.create_server(("", 80))
while True:
    c, _ = s.accept()
    while data := c.recv(100):
        c.sendall(data)
    c.close()
"""
LINES = """
import socket, sys
c = socket.create_connection(("web", 80))
for line in sys.stdin:
    c.sendall(line.encode())
    print(c.recv(100).decode().strip() or "the end", flush=True)
"""


class Talker:
    """A client that holds a connection to `web`."""

    def __init__(self, host: Host, code: str = LINES) -> None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = host.spawn(*CLIENT, PYTHON, "-c", code, **pipes)
        assert self.process.stdin
        assert self.process.stdout
        self._to, self._from = self.process.stdin, self.process.stdout

    def say(self, line: str) -> str:
        """What comes back."""
        self._to.write(line + "\n")
        self._to.flush()
        return self._from.readline().rstrip("\n")

    def __enter__(self) -> Talker:
        return self

    def __exit__(self, *_: object) -> None:
        self._to.close()
        self._from.close()
        stop(self.process)


@contextmanager
def talker(host: Host) -> Iterator[Talker]:
    """Connected."""
    with Talker(host) as made:
        assert made.say("hello") == "hello"
        yield made


@pytest.mark.program("ss")
def test_both_programs_have_the_ends_of_one_connection_between_the_hosts(hosts: tuple[Host, Host]) -> None:
    a, b = hosts
    b.spawn(*WEB, PYTHON, "-c", BACK)
    a.wait_for("web:80")
    with talker(a):
        (row,), (far,) = a.rows("connections"), b.rows("connections")
        shown = ("client_name", "client_ip", "client_port", "dest_ip", "dest_port", "server_name", "medium", "state")
        assert [row[key] for key in shown] == [far[key] for key in shown]
        said = (row["client_ip"], row["dest_ip"], row["medium"], row["state"])
        assert said == ("10.9.9.2", "10.9.9.1", "tcp", "established")
        assert (row["node"], far["node"]) == ("a", "b")
        (mine, _), (_, theirs) = row["inodes"], far["inodes"]
        at_a, at_b = end(a, mine), end(b, theirs)
    assert at_a[:2] == at_b[1::-1], "one connection"
    assert (at_a[0].split(":")[0], at_b[0]) == (a.address, f"{b.address}:7947")
    for _, _, line in (at_a, at_b):
        holders = re.findall(r'\("([^"]+)",pid=\d+,fd=(\d+)\)', line)
        assert len(holders) == 1, "nobody but the program has it"
        assert holders[0][0].startswith("python")
    eventually(lambda: not a.rows("connections") and not b.rows("connections"))


def end(host: Host, inode: int) -> tuple[str, str, str]:
    """Of the socket with this inode: its own address, its peer's, and who has it."""
    (line,) = [line for line in host.namespace.run("ss", "-tnpeH").splitlines() if f"ino:{inode} " in line]
    own, peer = (each.replace("[::ffff:", "").replace("]", "") for each in line.split()[3:5])
    return own, peer, line


NONBLOCKING = """
import errno, select, socket
c = socket.socket()
c.setblocking(False)
epoll = select.epoll()
epoll.register(c, select.EPOLLOUT | select.EPOLLIN)
assert c.connect_ex(("10.9.9.1", 80)) == errno.EINPROGRESS
own = c.getsockname()
assert own[0] == "10.9.9.2" and own[1], own
(event,) = epoll.poll(20)
assert event[0] == c.fileno() and event[1] & select.EPOLLOUT and not event[1] & select.EPOLLERR, event
assert c.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
assert c.getsockname() == own and c.getpeername() == ("10.9.9.1", 80)
assert c.connect_ex(("10.9.9.1", 80)) in (0, errno.EISCONN)
assert c.connect_ex(("10.9.9.1", 80)) == errno.EISCONN
c.setblocking(True)
assert eval(c.recv(200))[:2] == (own, ("10.9.9.1", 80))
"""


@pytest.mark.parametrize("fastopen", ["1", "0"])
def test_a_connect_that_does_not_block(hosts: tuple[Host, Host], fastopen: str) -> None:
    a, b = hosts
    b.spawn(*WEB, PYTHON, "-c", ECHO, "80")
    a.wait_for("web:80")
    a.namespace.run("sysctl", "-qw", f"net.ipv4.tcp_fastopen={fastopen}")
    try:
        for _ in range(3):
            a.run(*CLIENT, PYTHON, "-c", NONBLOCKING)
    finally:
        a.namespace.run("sysctl", "-qw", "net.ipv4.tcp_fastopen=1")


def test_identities_over_both_ip_versions(hosts: tuple[Host, Host]) -> None:
    a, b = hosts
    b.spawn(*WEB, PYTHON, "-c", ECHO, "80")
    b.spawn("--name", "web6", "--ip", "fd00::1", PYTHON, "-c", ECHO.replace('("", ', '("::", ').replace(
        "backlog", "family=socket.AF_INET6, backlog"), "80")  # fmt: skip
    a.wait_for("web:80", "web6:80")
    ((own, server),) = ask(a, *CLIENT)
    assert own == server
    assert own[0][0] == "10.9.9.2"
    ((own, server),) = ask(a, "--ip", "fd00::2", name="web6")
    assert own == server
    assert own[0][0] == "fd00::2"


def test_a_bound_port(hosts: tuple[Host, Host]) -> None:
    a, b = hosts
    b.spawn(*WEB, PYTHON, "-c", ECHO, "80")
    a.wait_for("web:80")
    code = "import socket; print(socket.create_connection(('web', 80), source_address=('', 5000)).recv(99).decode())"
    assert a.run(*CLIENT, PYTHON, "-c", code).stdout.startswith("(('10.9.9.2', 5000), ")


def test_loopback_reaches_a_sibling_on_another_host(hosts: tuple[Host, Host]) -> None:
    a, b = hosts
    b.spawn(*WEB, PYTHON, "-c", ECHO, "80")
    a.wait_for("web:80")
    ((own, server),) = ask(a, *WEB, name="127.0.0.1")
    assert own == server
    assert own[0][0] == "127.0.0.1"


# --- who may, and what is told of it


def test_groups(hosts: tuple[Host, Host]) -> None:
    a, b = hosts
    b.spawn(*WEB, "--tag", "grp=2", PYTHON, "-c", ECHO, "80")
    a.wait_for("web:80")
    assert len(ask(a, "--tag", "grp=2", times=2)) == 2
    denied = a.run("--tag", "grp=1", PYTHON, "-c", ASK, "web", "80", "1", check=False)
    assert "ConnectionRefusedError" in denied.stderr
    assert [row["server_name"] for row in a.events("--kind", "deny")] == ["web"]


def test_the_policy_of_the_servers_host_holds_and_cuts(net: Network) -> None:
    a, b = net.add("a"), net.add("b")
    policy = b.directory / "policy.toml"
    policy.write_text("")
    a.serve("--key-file", str(net.key))
    b.serve("--key-file", str(net.key), "--join", a.address, "--policy", str(policy))
    b.spawn(*WEB, PYTHON, "-c", BACK)
    a.wait_for("web:80")
    with talker(a) as client:
        policy.write_text('[[rule]]\nname = "out"\naction = "deny"\ncut = true\nfrom = { name = "client" }\n')
        b.server.send_signal(signal.SIGHUP)
        eventually(lambda: not b.rows("connections"))
        assert [row["rule"] for row in b.events("--kind", "deny")] == ["out"]
        denied = a.run(*CLIENT, PYTHON, "-c", ASK, "web", "80", "1", check=False)
        assert "ConnectionRefusedError" in denied.stderr
        assert client.say("anybody there?") == "the end"


def test_drain(hosts: tuple[Host, Host]) -> None:
    a, b = hosts
    b.spawn(*WEB, PYTHON, "-c", BACK)
    a.wait_for("web:80")
    with talker(a):
        early = b.command("drain", "web", "--timeout", "0.1", check=False)
        assert "1 connection is left" in early.stderr
        refused = a.run(*CLIENT, PYTHON, "-c", ASK, "web", "80", "1", check=False)
        assert "ConnectionRefusedError" in refused.stderr
    b.command("drain", "web", "--timeout", str(PATIENCE))


def test_a_stranger_gets_nothing(hosts: tuple[Host, Host]) -> None:
    a, b = hosts
    b.spawn(*WEB, PYTHON, "-c", ECHO, "80")
    a.wait_for("web:80")
    code = f"""
import socket, os
many = [socket.create_connection(("{b.address}", 7947)) for _ in range(400)]
many[-1].sendall(os.urandom(500))
for each in many:
    each.settimeout(20)
    try:
        assert each.recv(1) == b""
    except ConnectionResetError:
        pass
"""
    stranger = subprocess.Popen([*a.namespace.enter, PYTHON, "-c", code])
    assert len(ask(a, *CLIENT, times=5)) == 5
    assert stranger.wait(PATIENCE) == 0


# --- instances, and hosts that die


def test_the_local_instance_first_then_the_others(hosts: tuple[Host, Host]) -> None:
    a, b = hosts
    b.spawn(*WEB, PYTHON, "-c", ECHO, "80", "b")
    here = a.spawn(*WEB, PYTHON, "-c", ECHO, "80", "a")
    eventually(lambda: len(a.rows("services")) == 2)
    assert {server[2] for _, server in ask(a, *CLIENT, times=6)} == {"a"}
    here.terminate()
    here.wait()
    assert {server[2] for _, server in ask(a, *CLIENT, times=6)} == {"b"}


def test_any_instance(hosts: tuple[Host, Host]) -> None:
    a, _ = hosts
    for host in hosts:
        host.spawn(*WEB, "--tag", "prefer=any", PYTHON, "-c", ECHO, "80", host.name)
    eventually(lambda: len(a.rows("services")) == 2)
    said = [server[2] for _, server in ask(a, *CLIENT, times=6)]
    assert sorted(said) == ["a"] * 3 + ["b"] * 3


TIMED = """
import socket, sys, time
for line in sys.stdin:
    start = time.monotonic()
    try:
        said = eval(socket.create_connection(("web", 80)).recv(200))[2]
    except OSError as error:
        said = error
    print(said, round(time.monotonic() - start, 3), flush=True)
"""


@pytest.mark.parametrize("how", ["killed", "cut off"])
def test_a_host_that_dies_is_gone_past(net: Network, how: str) -> None:
    a, b, c = net.serve("a", "b", "c")
    for host in (b, c):
        host.spawn(*WEB, PYTHON, "-c", ECHO, "80", host.name)
    eventually(lambda: len(a.rows("services")) == 2)
    with Talker(a, TIMED) as client:
        assert {client.say("now").split()[0] for _ in range(6)} == {"b", "c"}
        if how == "killed":
            b.kill()
        else:
            b.cut_off()
        said = [client.say("now").split() for _ in range(20)]
    assert {each for each, _ in said} == {"c"}
    # One at most was slow; with a busy machine a second is no time at all, so what was measured is only shown.
    print("the slowest took", max(float(seconds) for _, seconds in said), "s")


def test_connections_go_on_without_the_trap_handlers(net: Network) -> None:
    a, b = net.serve("a", "b")
    b.spawn(*WEB, PYTHON, "-c", BACK)
    a.wait_for("web:80")
    with talker(a) as client:
        for host in (a, b):
            host.server.kill()
            host.server.wait()
        assert client.say("still here") == "still here"


@pytest.mark.parametrize("which", ["the client's", "the server's"])
def test_connects_go_on_after_a_trap_handler_was_killed(net: Network, which: str) -> None:
    a, b = net.serve("a", "b")
    b.spawn(*WEB, PYTHON, "-c", ECHO, "80")
    a.wait_for("web:80")
    with Talker(a, TIMED.replace(")[2]", ")[1][0]")) as client:
        assert client.say("now").split()[0] == "10.9.9.1"
        host, other = (a, b) if which == "the client's" else (b, a)
        host.server.kill()
        host.server.wait()
        host.serve("--key-file", str(net.key), "--join", other.address)
        host.command("nodes", "--wait")
        other.command("nodes", "--wait")
        eventually(lambda: client.say("now").split()[0] == "10.9.9.1")
