"""The outside by gateways: an inner host without a route out, two gateways, and an "internet" that only these reach."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from ast import literal_eval
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.egress import (
    ABSENT,
    CLIENT,
    NOWHERE,
    PYTHON,
    SERVER,
    SERVER6,
    World,
    own_world,
    shared,
    via,
    world,
)
from tests.e2e.test_real_programs import postgres_programs
from tests.harness import eventually, stop
from tests.hosts import INTERNET, INTERNET6, SILENT, Host, only

__all__ = ["own_world", "shared", "world"]  # fixtures

pytestmark = [pytest.mark.root, pytest.mark.program("serf", "ip", "nsenter")]

NGINX = """
daemon off; pid {dir}/nginx.pid; error_log {dir}/nginx.log; worker_processes 2;
events {{ worker_connections 512; }}
http {{
  access_log off; client_body_temp_path {dir}/body;
  server {{
    listen 80 backlog=4096; listen [::]:80 backlog=4096; keepalive_requests 1000000;
    location / {{ return 200 "to $remote_addr\\n"; }}
    location /files/ {{ alias {dir}/files/; }}
    location /put {{ client_max_body_size 100m; dav_methods PUT; root {dir}/files; }}
  }}
}}
"""


def start_nginx(world: World) -> Path:
    """Outside; where its files are."""
    directory = world.outside.directory / "nginx"
    (directory / "files").mkdir(parents=True, exist_ok=True)
    for each in (world.outside.directory, directory, directory / "files"):
        each.chmod(0o777)
    config = directory / "nginx.conf"
    config.write_text(NGINX.format(dir=directory))
    world.outside.start("nginx", "-c", str(config))
    world.outside.listens(80)
    return directory / "files"


# --- real programs


@pytest.mark.program("nginx", "curl")
def test_curl_goes_by_the_gateways_in_turns(world: World) -> None:
    start_nginx(world)
    said = [world.inner.run(*CLIENT, "curl", "-sS", f"http://{SERVER}/").stdout for _ in range(6)]
    assert Counter(said) == {f"to {via(each)}\n": 3 for each in world.gateways}
    assert world.inner.run(*CLIENT, "curl", "-sS", f"http://[{SERVER6}]/").stdout.startswith(f"to {INTERNET6}10")


@pytest.mark.program("nginx", "curl")
def test_large_bodies_both_ways(world: World) -> None:
    files = start_nginx(world)
    data = os.urandom(30_000_000)
    (files / "large").write_bytes(data)
    got, sent = world.inner.directory / "got", world.inner.directory / "sent"
    world.inner.run("curl", "-sS", "-o", str(got), f"http://{SERVER}/files/large")
    assert got.read_bytes() == data
    sent.write_bytes(data[::-1])
    world.inner.run("curl", "-sSf", "-T", str(sent), f"http://{SERVER}/put")
    assert (files / "put").read_bytes() == data[::-1]


@pytest.mark.program("nginx", "wrk")
def test_wrk(world: World) -> None:
    start_nginx(world)
    done = world.inner.run(*CLIENT, "wrk", "-t", "2", "-c", "40", "-d", "2s", f"http://{SERVER}/")
    assert "Socket errors" not in done.stdout, done
    assert int(re.findall(r"(\d+) requests in", done.stdout)[0]) > 500
    done = world.inner.run("wrk", "-t", "2", "-c", "10", "-d", "1s", "-H", "Connection: close", f"http://{SERVER}/")
    assert "connect" not in done.stdout.partition("Socket errors")[2] or "connect 0" in done.stdout, done
    assert int(re.findall(r"(\d+) requests in", done.stdout)[0]) > 20


@pytest.mark.program("psql")
def test_postgres(world: World) -> None:
    programs, data = postgres_programs(), world.outside.directory / "data"
    data.mkdir()
    os.chown(data, 65534, -1)
    world.outside.directory.chmod(0o777)
    user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    subprocess.run([*user, programs / "initdb", "-D", data, "-A", "trust", "-U", "nobody"], check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    with (data / "pg_hba.conf").open("a") as hba:
        hba.write(f"host all all {INTERNET}0/24 trust\n")
    world.outside.start(*user, str(programs / "postgres"), "-D", str(data), "-h", "*", "-k", str(data))
    world.outside.listens(5432)
    query = ["psql", "-h", SERVER, "-U", "nobody", "-d", "postgres", "-Atc"]
    eventually(lambda: world.inner.run(*query, "select 1", check=False).stdout == "1\n")
    rows = world.inner.run(*query, "select generate_series(1, 200000)").stdout.splitlines()
    assert rows == [str(number) for number in range(1, 200001)]
    who = world.inner.run(*query, "select inet_client_addr()").stdout.strip()
    assert who in {via(each) for each in world.gateways}


@pytest.mark.program("nginx", "node")
def test_node(world: World) -> None:
    """Twenty connects at once, none of which blocks."""
    start_nginx(world)
    fetch = f"""
Promise.all([...Array(20)].map(async () => await (await fetch("http://{SERVER}/")).text()))
  .then(texts => console.log(JSON.stringify(texts)));
"""
    texts = json.loads(world.inner.run("node", "-e", fetch).stdout)
    assert Counter(texts) == {f"to {via(each)}\n": 10 for each in world.gateways}


@pytest.mark.program("nginx", "curl")
def test_a_gateway_itself_goes_directly(world: World) -> None:
    start_nginx(world)
    for gateway in world.gateways:
        assert gateway.run("curl", "-sS", f"http://{SERVER}/").stdout == f"to {via(gateway)}\n"


@pytest.mark.program("nginx", "curl")
def test_an_app_without_a_namespace(world: World) -> None:
    start_nginx(world)
    said = world.inner.run("--no-netns", "curl", "-sS", f"http://{SERVER}/").stdout
    assert said in {f"to {via(each)}\n" for each in world.gateways}


# --- what a connection is

CONNECT = """
import errno, select, socket, sys
def connect(host, port, blocking):
    s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, int(sys.argv[3]))
    s.setblocking(blocking)
    with select.epoll() as epoll:
        epoll.register(s, select.EPOLLIN | select.EPOLLOUT)
        error = s.connect_ex((host, port))
        if not blocking:
            assert error == errno.EINPROGRESS, error
            own = s.getsockname()
            try:
                s.getpeername()
            except OSError as not_yet:
                assert not_yet.errno == errno.ENOTCONN
            (_, what), = epoll.poll(30)
            error = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            assert bool(what & select.EPOLLERR) == bool(error), (what, error)
            assert error or s.getsockname() == own
    return s, errno.errorcode[error] if error else None
"""
OUTCOME = (
    CONNECT
    + """
for blocking in (True, False):
    print(connect(sys.argv[1], int(sys.argv[2]), blocking)[1])
"""
)


@pytest.mark.parametrize(
    ("host", "port", "retries", "error"),
    [
        (SERVER, 81, 6, "ECONNREFUSED"),
        (SERVER6, 81, 6, "ECONNREFUSED"),
        (ABSENT, 80, 6, "EHOSTUNREACH"),
        (SILENT, 80, 1, "ETIMEDOUT"),
        (NOWHERE, 80, 6, "ENETUNREACH"),
    ],
)
def test_the_program_sees_what_the_gateways_connect_came_to(
    world: World, host: str, port: int, retries: int, error: str
) -> None:
    """Also when its own doesn't block: EINPROGRESS, then the error."""
    said = world.inner.run(*CLIENT, PYTHON, "-c", OUTCOME, host, str(port), str(retries), timeout=60)
    assert said.stdout.split() == [error, error]
    if error != "ETIMEDOUT":  # which is the program's own
        (first, second) = only(world.inner.events("--kind", "refuse"), address=host, port=port)[-2:]
        assert first["errno"] == second["errno"] == error
        assert first["medium"] == "gateway"


NAMES = (
    CONNECT
    + """
port = int(sys.argv[2])
for host in (sys.argv[1], sys.argv[4], "::ffff:" + sys.argv[1]):
    for blocking in (True, False):
        s, error = connect(host, port, blocking)
        assert error is None, error
        s.setblocking(True)
        assert s.getsockname()[1] > 0
        print((s.getsockname()[0], s.getpeername()[:2]))
        s.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
        s.shutdown(socket.SHUT_WR)
        got = b""
        while more := s.recv(9999): got += more
        assert got.startswith(b"HTTP/1.1 200"), got
        assert s.connect_ex((host, port)) == errno.EISCONN
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), source_address=("", 5000))
print(s.getsockname())
"""
)


@pytest.mark.program("nginx")
def test_names_at_both_ends(world: World) -> None:
    """The program sees its own address, and the one that it has asked for; with a half-close."""
    start_nginx(world)
    said = world.inner.run(*CLIENT, PYTHON, "-c", NAMES, SERVER, "80", "6", SERVER6).stdout.splitlines()
    mine, mine6 = "10.9.9.2", "fd61:7073:7769::a09:902"
    assert [literal_eval(line) for line in said] == [
        *[(mine, (SERVER, 80))] * 2,
        *[(mine6, (SERVER6, 80))] * 2,
        *[(f"::ffff:{mine}", (f"::ffff:{SERVER}", 80))] * 2,
        (mine, 5000),
    ]


ECHO = """
import socket, sys, threading
def serve(c):
    with c:
        while data := c.recv(65536): c.sendall(data)
s = socket.create_server(("", 7000), backlog=1000)
while True: threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()
"""
LINES = """
import socket, sys
c = socket.create_connection((sys.argv[1], 7000))
for line in sys.stdin:
    try:
        c.sendall(line.encode())
        print(c.recv(100).decode().strip() or "the end", flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
"""


class Talker:
    """A client that holds a connection to the server outside."""

    def __init__(self, host: Host) -> None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = host.spawn(*CLIENT, PYTHON, "-c", LINES, SERVER, **pipes)

    def say(self, line: str) -> str:
        """What comes back."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().rstrip("\n")

    def __enter__(self) -> Talker:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin
        assert self.process.stdout
        with self.process.stdin, self.process.stdout:
            stop(self.process)


def start_echo(world: World) -> None:
    world.outside.start(PYTHON, "-c", ECHO)
    world.outside.listens(7000)


def test_both_nodes_list_it_and_tell_of_it(world: World) -> None:
    start_echo(world)
    with Talker(world.inner) as client:
        assert client.say("hello") == "hello"
        (mine,) = world.inner.rows("connections")
        shown = ("client_name", "client_ip", "client_node", "dest_ip", "dest_port", "server_app", "medium", "state")
        seen = ["client", "10.9.9.2", "inner", SERVER, 7000, None, "gateway", "established"]
        assert [mine[key] for key in shown] == seen
        assert mine["node"] == "inner"
        theirs = [row for gateway in world.gateways for row in only(gateway.rows("connections"), dest_port=7000)]
        assert len(theirs) == 1, theirs
        by = next(each for each in world.gateways if each.name == theirs[0]["node"])
        seen[1] = via(by)
        assert [theirs[0][key] for key in shown] == seen
        told, theirs_told = world.inner.events("--kind", "connect")[-1], by.events("--kind", "connect")[-1]
        assert (told["medium"], told["reason"]) == ("gateway", f"by the gateway {by.name}")
        assert [told[key] == theirs_told[key] for key in ("app", "address", "port", "medium")] == [True] * 4
        why = json.loads(world.inner.command("why", "client", f"{SERVER}:7000", "--json").stdout)
        assert why["verdict"] == "outside"
        assert "by way of the gateway g1 or g2" in why["reason"]
    for host in world.net.hosts:
        eventually(lambda host=host: not host.rows("connections"))


# --- who may

REFUSED = (
    CONNECT
    + """
for place in sys.argv[4:]:
    host, _, port = place.rpartition(":")
    print(connect(host, int(port), True)[1])
"""
)


def test_what_a_gateway_lets_nobody_to(world: World) -> None:
    """Its loopback, and the ports that the nodes talk by, which it has at one address only; else its host is as any
    other outside.
    """
    g1 = world.g1
    addresses = [*(host.address for host in world.net.hosts), via(g1)]
    places = [f"{address}:{port}" for address in addresses for port in (7946, 7947)]
    g1.spawn(*CLIENT[:1], "here", PYTHON, "-m", "http.server", "8000")
    ours = subprocess.Popen([*g1.namespace.enter, PYTHON, "-m", "http.server", "8001", "--bind", g1.address],
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)  # fmt: skip
    try:
        eventually(lambda: g1.namespace.run("ss", "-Hltn", "sport = :8001"))
        for host in (world.inner, g1):
            said = host.run(PYTHON, "-c", REFUSED, "", "", "6", *places, f"{g1.address}:8001").stdout.split()
            assert said == ["ECONNREFUSED"] * len(places) + ["None"]
    finally:
        stop(ours)
    loopback = ["127.0.0.1:7947", "0.0.0.0:7947", "::1:7947"]
    said = world.inner.run(PYTHON, "-c", REFUSED, "", "", "6", *loopback).stdout.split()
    assert said == ["ECONNREFUSED"] * 3
    assert "ENETUNREACH" in world.inner.run(PYTHON, "-c", REFUSED, "", "", "6", "169.254.169.254:80").stdout


def test_the_gateways_policy_holds(own_world: World) -> None:
    """The app's node has none."""
    world = own_world
    start_echo(world)
    for gateway in world.gateways:
        stop(gateway.server)
        policy = gateway.directory / "policy.toml"
        rule = ["[[rule]]", 'name = "not-there"', 'action = "deny"', 'from = { name = "client" }']
        policy.write_text("\n".join([*rule, f'to = {{ cidr = "{INTERNET}0/24" }}']))
        gateway.serve("--key-file", str(world.net.key), "--gateway", "--policy", str(policy), "--join",
                      world.inner.address)  # fmt: skip
    for host in world.net.hosts:
        host.command("nodes", "--wait")
    said = world.inner.run(*CLIENT, PYTHON, "-c", OUTCOME, SERVER, "7000", "6")
    assert said.stdout.split() == ["ECONNREFUSED"] * 2
    denied = [row for gateway in world.gateways for row in gateway.events("--kind", "deny")]
    assert {(row["rule"], row["name"]) for row in denied} == {("not-there", "client")}
    assert world.inner.run("--name", "other", PYTHON, "-c", OUTCOME, SERVER, "7000", "6").stdout.split() == ["None"] * 2


# --- gateways that die

FLOOD = """
import socket, sys, threading, time
done, failed, lock = 0, [], threading.Lock()
stop = threading.Event()
def work():
    global done
    while not stop.is_set():
        try:
            with socket.create_connection((sys.argv[1], 7000), timeout=20) as c:
                for _ in range(3):
                    c.sendall(b"x")
                    assert c.recv(1) == b"x"
            with lock: done += 1
        except (OSError, AssertionError) as error:
            with lock: failed.append(type(error).__name__)
threads = [threading.Thread(target=work) for _ in range(4)]
for each in threads: each.start()
for line in sys.stdin:
    print(done, len(failed), flush=True)
stop.set()
for each in threads: each.join()
print(done, *failed, flush=True)
"""


@pytest.mark.parametrize("how", ["killed", "cut off"])
def test_a_gateway_that_dies_under_load(own_world: World, how: str) -> None:
    """Its own connections break, and no others; new ones go by the other."""
    world = own_world
    start_echo(world)
    with ExitStack() as stack:
        first = stack.enter_context(Talker(world.inner))
        assert first.say("one") == "one"
        second = stack.enter_context(Talker(world.inner))
        assert second.say("two") == "two"
        (by_g1,), (by_g2,) = world.g1.rows("connections"), world.g2.rows("connections")
        assert by_g1["client_app"] < by_g2["client_app"], "the first one goes by g1"
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        flood = world.inner.spawn(PYTHON, "-c", FLOOD, SERVER, **pipes)
        assert flood.stdin
        assert flood.stdout

        def so_far() -> int:
            assert flood.stdin
            assert flood.stdout
            flood.stdin.write("\n")
            flood.stdin.flush()
            return int(flood.stdout.readline().split()[0])

        eventually(lambda: so_far() >= 20)
        if how == "killed":  # the trap handler, and what it has left to itself, as when the host is switched off
            world.g1.kill()
            (relay,) = (pid for pid, name in world.g1.namespace.processes().items() if name == "appswitch-relay")
            os.kill(relay, signal.SIGKILL)
        else:
            world.g1.cut_off()
        before = so_far()
        eventually(lambda: so_far() >= before + 20)
        assert second.say("still there?") == "still there?"
        if how == "killed":
            assert first.say("still there?") in ("the end", "ConnectionResetError", "BrokenPipeError")
        out, _ = flood.communicate()
        failed = out.split()[1:]
        assert len(failed) <= 4, "each thread had one connection"


def test_connections_go_on_without_the_trap_handlers(own_world: World) -> None:
    world = own_world
    start_echo(world)
    with Talker(world.inner) as client:
        assert client.say("hello") == "hello"
        for host in world.net.hosts:
            host.kill_server()
        assert client.say("still here") == "still here"
        world.inner.serve("--key-file", str(world.net.key))
        assert client.say("and now") == "and now"
