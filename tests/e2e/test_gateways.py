"""Clients from outside, through a gateway to programs of its own host: real ones, from a namespace that is outside."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_real_programs import postgres_programs
from tests.harness import PATIENCE, Switch, eventually, stop
from tests.hosts import INTERNET, INTERNET6, Host, Namespace, Network, network, only

pytestmark = [pytest.mark.root, pytest.mark.program("serf", "nginx", "curl")]

PYTHON = sys.executable
GATEWAY, CLIENT, OTHER = INTERNET + "101", INTERNET + "1", INTERNET + "2"
NGINX = """
daemon off; pid {dir}/{name}.pid; error_log {dir}/{name}-error.log; user root; worker_processes 2;
events {{}}
http {{
  access_log off; client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/f;
  uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  server {{ listen 80; listen [::]:80; return 200 "{name}: $remote_addr to $server_addr:$server_port\\n"; }}
}}
"""
HELLO = """
import socket, sys
s = socket.create_server(("", 80))
while True:
    c, peer = s.accept()
    c.recv(999)
    c.sendall(f"{sys.argv[1]} sees {peer[0]}\\n".encode())
    c.close()
"""
ECHO = """
import contextlib, socket
s = socket.create_server(("", 80))
while True:
    c, peer = s.accept()
    with c, contextlib.suppress(OSError):
        while data := c.recv(99):
            c.sendall(data)
"""
MANY_ECHO = """
import socketserver
class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(99):
            self.request.sendall(data)
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
Server(("", 80), Handler).serve_forever()
"""
TALKER = """
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), source_address=(sys.argv[3], 0))
print("connected", flush=True)
for line in sys.stdin:
    try:
        s.sendall(line.encode())
        print(s.recv(99).decode().strip() or "end", flush=True)
    except OSError as error:
        print(error, flush=True)
"""


class Outside:
    """Clients in the namespace that is the internet."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace

    def get(self, port: int, gateway: str = GATEWAY) -> str:
        return self.namespace.run("curl", "-sS", "-m", "20", f"http://{gateway}:{port}/").strip()

    def is_refused(self, port: int, gateway: str = GATEWAY) -> bool:
        command = [*self.namespace.enter, "curl", "-sS", "-m", "20", f"http://{gateway}:{port}/"]
        done = subprocess.run(command, check=False, text=True, capture_output=True)
        assert done.returncode in (0, 1, 7, 52, 56), done  # 1: no HTTP, 52: nothing, 56: reset
        return done.returncode == 7  # "failed to connect"

    def talk(self, port: int, gateway: str = GATEWAY, source: str = CLIENT) -> Talker:
        command = [*self.namespace.enter, PYTHON, "-c", TALKER, gateway, str(port), source]
        return Talker(subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE))


class Talker:
    """A client that says lines and hears them again."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert self.line() == "connected"

    def line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def ask(self, text: str) -> str:
        assert self.process.stdin
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
        return self.line()

    def close(self) -> None:
        stop(self.process)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe
            pipe.close()


@pytest.fixture
def net() -> Iterator[Network]:
    with network() as made:
        yield made


@pytest.fixture
def host(net: Network) -> Host:
    """A gateway, which has no trap handler yet."""
    return net.add("gw1")


@pytest.fixture
def outside(net: Network, host: Host) -> Outside:
    return Outside(net.internet(host))


def start(host: Host, *flags: str) -> None:
    host.serve("--gateway", "--gateway-bind", GATEWAY, *flags)


def nginx(host: Switch, name: str, *flags: str) -> subprocess.Popen[str]:
    config = host.directory / f"{name}.conf"
    config.write_text(NGINX.format(dir=host.directory, name=name))
    before = {(row["node"], row["app"]) for row in host.rows("services")}
    process = host.spawn("--name", "web", *flags, "nginx", "-c", str(config))
    eventually(lambda: {(row["node"], row["app"]) for row in host.rows("services")} - before)
    return process


def said(process: subprocess.Popen[str]) -> str:
    """What spawn and its program have said so far."""
    text: str = process.log.read_text()  # type: ignore[attr-defined]
    return text


@pytest.mark.program("wrk")
def test_nginx_sees_its_clients(host: Host, outside: Outside) -> None:
    start(host)
    process = nginx(host, "one", "--expose", "80:8080")
    assert said(process) == f"appswitch: port 80 is exposed at {GATEWAY}:8080\n"
    assert {tuple(row["exposed"]) for row in host.rows("services")} == {(f"{GATEWAY}:8080",)}
    assert outside.get(8080) == f"one: {CLIENT} to {GATEWAY}:8080"
    for flags in ([], ["-H", "Connection: close"]):
        done = outside.namespace.run("wrk", "-t1", "-c20", "-d1", *flags, f"http://{GATEWAY}:8080/")
        assert "Socket errors" not in done
        assert int(re.findall(r"(\d+) requests in", done)[0]) > 50
    (event, *_) = [
        json.loads(line) for line in host.command("observe", "--json", "--kind", "connect").stdout.splitlines()
    ]
    assert event["source"].startswith(CLIENT + ":")
    assert (event["app"], event["server_name"], event["address"], event["port"]) == (None, "web", GATEWAY, 8080)
    assert outside.is_refused(80), "only what is exposed is"


def test_a_port_of_the_gateway_s_choice_and_the_last_instance(host: Host, outside: Outside) -> None:
    start(host)
    both = [nginx(host, name, "--expose", "80") for name in ("one", "two")]
    (place,) = {place for row in host.rows("services") for place in row["exposed"]}
    assert all(said(each) == f"appswitch: port 80 is exposed at {place}\n" for each in both)
    port = int(place.rpartition(":")[2])
    names = [outside.get(port).partition(":")[0] for _ in range(6)]
    assert sorted(names) == ["one"] * 3 + ["two"] * 3
    stop(both[0])
    eventually(lambda: {row["state"] for row in host.rows("services")} == {"up"} and len(host.rows("services")) == 1)
    assert {outside.get(port).partition(":")[0] for _ in range(3)} == {"two"}
    stop(both[1])
    eventually(lambda: outside.is_refused(port))
    eventually(lambda: host.rows("services") == host.rows("ps") == [])
    assert str(port) not in host.namespace.run("ss", "-Htlna")


def test_a_port_that_is_taken(host: Host, outside: Outside) -> None:
    """The program doesn't start."""
    start(host)
    other = host.namespace.start(
        PYTHON, "-m", "http.server", "--bind", GATEWAY, "8080", log=host.directory / "other.log"
    )
    eventually(lambda: ":8080" in host.namespace.run("ss", "-Htln"))
    done = host.run("--name", "web", "--expose", "80:8080", "echo", "started", check=False)
    assert (done.returncode, done.stdout) == (125, "")
    assert "port 80 can't be exposed: gateway gw1 says: port 8080 is taken by another program" in done.stderr
    assert "hint: " in done.stderr
    nginx(host, "one", "--expose", "80:8081")
    done = host.run("--name", "other", "--expose", "1:8081", "echo", "started", check=False)
    assert (done.returncode, done.stdout) == (125, "")
    (web,) = host.rows("resolve", "web")
    assert f"port 8081 is taken by {web['ip']} port 80" in done.stderr
    eventually(lambda: [row["name"] for row in host.rows("ps")] == ["web"])
    assert outside.get(8081).startswith("one")
    stop(other)


@pytest.mark.parametrize("flags", [["--no-netns"], ["--tcp"]], ids=lambda flags: flags[0])
def test_apps_of_all_kinds(host: Host, outside: Outside, flags: list[str]) -> None:
    start(host)
    host.spawn(*flags, "--name", "web", "--expose", "80:8080", PYTHON, "-c", HELLO, "web")
    host.wait_for("web:80")
    assert outside.namespace.run("curl", "-sS", "--http0.9", f"http://{GATEWAY}:8080/") == f"web sees {CLIENT}\n"


def start_postgres(host: Host, port: int, outside: Namespace) -> list[str]:
    """A PostgreSQL there, exposed at that port; how CLIENT asks it."""
    programs = postgres_programs()
    data = Path(tempfile.mkdtemp(dir=host.directory))  # a new one where the test is run again
    os.chown(data, 65534, -1)
    subprocess.run([str(programs / "initdb"), "-D", str(data), "-A", "trust", "--no-sync"], user=65534, check=True,
                   stdout=subprocess.DEVNULL, cwd="/")  # fmt: skip
    with (data / "pg_hba.conf").open("a") as file:
        file.write(f"host all all {CLIENT}/32 trust\n")
    server = [str(programs / "postgres"), "-D", str(data), "-h", "*", "-k", str(data)]
    host.spawn("--name", "db", "--user", "nobody", "--expose", f"5432:{port}", *server)
    host.wait_for("db:5432")
    psql = ["psql", "-h", GATEWAY, "-p", str(port), "-U", "nobody", "-d", "postgres", "-At", "-c"]
    ask = [*outside.enter, *psql, "select 1"]
    eventually(lambda: subprocess.run(ask, check=False, capture_output=True).returncode == 0)  # it listens, then starts
    return psql


@pytest.mark.program("psql")
def test_postgres(host: Host, outside: Outside) -> None:
    start(host)
    psql = start_postgres(host, 15432, outside.namespace)
    assert outside.namespace.run(*psql, "select inet_client_addr()").strip() == CLIENT
    rows = outside.namespace.run(*psql, "select repeat(chr(65 + n % 26), 1000) from generate_series(1, 5000) n")
    assert len(rows) == 5000 * 1001


def test_a_restart_of_the_trap_handler(host: Host, outside: Outside) -> None:
    """What was handed over goes on; ports are open again, also those that the gateway has chosen."""
    start(host)
    host.spawn("--name", "echo", "--expose", "80:8080", "--expose", "80", PYTHON, "-c", ECHO)
    host.wait_for("echo:80")
    (before,) = host.rows("services")
    client = outside.talk(8080)
    assert client.ask("one") == "one"
    host.kill_server()
    assert outside.is_refused(8080)
    assert client.ask("two") == "two", "the program has the client's socket"
    start(host)
    client.close()
    eventually(lambda: not outside.is_refused(8080))
    (after,) = host.rows("services")
    assert sorted(after["exposed"]) == sorted(before["exposed"])
    for place in after["exposed"]:
        client = outside.talk(int(place.rpartition(":")[2]))
        assert client.ask("again") == "again"
        client.close()


def test_drain(host: Host, outside: Outside) -> None:
    start(host)
    host.spawn("--name", "echo", "--expose", "80:8080", PYTHON, "-c", ECHO)
    host.wait_for("echo:80")
    client = outside.talk(8080)
    assert client.ask("one") == "one"
    (row,) = host.rows("connections")
    assert (row["client_app"], row["client_ip"], row["dest_port"], row["medium"]) == (None, CLIENT, 8080, "tcp")
    assert (row["server_name"], row["state"]) == ("echo", "established")
    done = host.command("drain", "echo", "--timeout", "0", check=False)
    assert done.returncode == 1
    assert "1 connection is left" in done.stderr
    eventually(lambda: outside.is_refused(8080))
    assert client.ask("two") == "two"
    client.close()
    host.command("drain", "echo", "--timeout", str(PATIENCE))
    host.command("drain", "echo", "--undo")
    eventually(lambda: not outside.is_refused(8080))


POLICY = """
[[rule]]
name = "not-these"
action = "{action}"
cut = {cut}
from = {{ cidr = "{cidr}" }}
to = {{ name = "echo", port = 80 }}
"""


def test_policy_for_clients_outside(host: Host, outside: Outside) -> None:
    file = host.directory / "policy.toml"
    file.write_text(POLICY.format(action="audit", cut="false", cidr=CLIENT + "/32"))
    start(host, "--policy", str(file))
    host.spawn("--name", "echo", "--expose", "80:8080", PYTHON, "-c", ECHO)
    host.wait_for("echo:80")
    client = outside.talk(8080)
    assert client.ask("one") == "one"
    file.write_text(POLICY.format(action="deny", cut="true", cidr=CLIENT + "/32"))
    host.server.send_signal(signal.SIGHUP)
    eventually(lambda: client.ask("two") != "two")
    client.close()
    curl = [*outside.namespace.enter, "curl", "-sS", "-m", "20"]
    done = subprocess.run([*curl, f"http://{GATEWAY}:8080/"], check=False, text=True, capture_output=True)
    assert done.returncode in (7, 56), done  # reset: before curl sees that it is connected, or after
    other = outside.talk(8080, source=OTHER)
    assert other.ask("three") == "three"
    other.close()
    told = json.loads(host.command("why", CLIENT, "echo:80", "--json", check=False).stdout)
    assert (told["verdict"], told["rule"], told["client_app"], told["client_ip"]) == ("deny", "not-these", None, CLIENT)
    assert host.command("why", OTHER, "echo:80").stdout.startswith(f"allow: {OTHER} (outside) -> echo ")
    for kind in ("audit", "deny"):
        told = host.events("--kind", kind)
        assert told
        assert {(each["source"].partition(":")[0], each["rule"]) for each in told} == {(CLIENT, "not-these")}


@pytest.fixture
def two(net: Network) -> tuple[Host, Host, Host, Outside]:
    """Two gateways, a host that nobody outside reaches, and the outside."""
    first, second, inner = hosts = [net.add(name) for name in ("gw1", "gw2", "inner")]
    outside = Outside(net.internet(first, second))
    for host in hosts:
        own = [] if host is inner else ["--gateway", "--gateway-bind", INTERNET + str(101 + hosts.index(host))]
        host.serve("--key-file", str(net.key), *([] if host is first else ["--join", first.address]), *own)
    for host in hosts:
        eventually(lambda host=host: set(host.tables()) == {"gw1", "gw2", "inner"})
        host.command("nodes", "--wait")
    return first, second, inner, outside


SECOND = INTERNET + "102"


@pytest.mark.program("wrk")
def test_two_gateways_and_a_host_inside(two: tuple[Host, Host, Host, Outside]) -> None:
    first, second, inner, outside = two
    both = [f"{GATEWAY}:8080", f"{SECOND}:8080"]
    process = nginx(inner, "in", "--expose", "80:8080")
    assert said(process) == f"appswitch: port 80 is exposed at {' and '.join(both)}\n"
    for host in (inner, first, second):
        host.command("nodes", "--wait")
        (row,) = host.rows("services")
        assert sorted(row["exposed"]) == both
    assert outside.get(8080, GATEWAY) == f"in: {CLIENT} to {GATEWAY}:8080"
    assert outside.get(8080, SECOND) == f"in: {CLIENT} to {SECOND}:8080"
    told = inner.events("--kind", "connect")
    assert {(each["source"].partition(":")[0], each["server_name"]) for each in told} == {(CLIENT, "web")}
    nginx(second, "out", "--expose", "80:8080")
    eventually(lambda: outside.get(8080, SECOND).startswith("out"))  # the gateway's own instance comes first
    assert outside.get(8080, GATEWAY)
    for gateway in (GATEWAY, SECOND):
        done = outside.namespace.run("wrk", "-t1", "-c10", "-d1", "-H", "Connection: close", f"http://{gateway}:8080/")
        assert "Socket errors" not in done
        assert int(re.findall(r"(\d+) requests in", done)[0]) > 20
    stop(process)
    eventually(lambda: {row["name"] for row in inner.rows("services")} == {"web"} and len(inner.rows("services")) == 1)
    eventually(lambda: outside.get(8080, GATEWAY).startswith("out"))


def test_a_gateway_that_is_killed_breaks_only_its_connections(two: tuple[Host, Host, Host, Outside]) -> None:
    first, second, inner, outside = two
    inner.spawn("--name", "echo", "--expose", "80:8080", PYTHON, "-c", MANY_ECHO)
    first.wait_for("echo:80")
    second.wait_for("echo:80")
    by_first, by_second = outside.talk(8080, GATEWAY), outside.talk(8080, SECOND)
    for each in (by_first, by_second):
        assert each.ask("one") == "one"
    first.namespace.run("ip", "link", "set", "eth0", "down")
    first.namespace.run("ip", "link", "set", "eth1", "down")
    first.kill()
    assert by_second.ask("two") == "two"
    more = outside.talk(8080, SECOND)
    assert more.ask("three") == "three"
    for each in (by_first, by_second, more):
        each.close()
    eventually(lambda: "gw1" not in second.tables())
    assert second.rows("services")[0]["exposed"] == [f"{SECOND}:8080"]


def test_a_trap_handler_of_a_gateway_that_is_killed(two: tuple[Host, Host, Host, Outside]) -> None:
    """What it relayed goes on; its ports are open again after its return."""
    first, _, inner, outside = two
    inner.spawn("--name", "echo", "--expose", "80:8080", PYTHON, "-c", MANY_ECHO)
    first.wait_for("echo:80")
    client = outside.talk(8080)
    assert client.ask("one") == "one"
    first.kill_server()
    assert client.ask("two") == "two"
    assert outside.is_refused(8080)
    first.serve("--gateway", "--gateway-bind", GATEWAY, "--key-file", str(inner.directory.parent / "key"), "--join",
                inner.address)  # fmt: skip
    eventually(lambda: not outside.is_refused(8080))
    assert client.ask("three") == "three"
    client.close()


def test_one_gateway_that_is_named(two: tuple[Host, Host, Host, Outside]) -> None:
    _, second, inner, outside = two
    for text, port in (("80:gw2:8080", 8080), (f"80:{SECOND}:8081", 8081), (f"80:{second.address}:8082", 8082)):
        process = nginx(inner, f"to-{port}", "--expose", text)
        assert said(process) == f"appswitch: port 80 is exposed at {SECOND}:{port}\n"
        eventually(lambda port=port: not outside.is_refused(port, SECOND))
        assert outside.is_refused(port, GATEWAY)
        stop(process)


def test_a_port_that_is_taken_at_another_host(two: tuple[Host, Host, Host, Outside]) -> None:
    _, second, inner, outside = two
    command = [PYTHON, "-m", "http.server", "--bind", SECOND, "8080"]
    second.namespace.start(*command, log=second.directory / "other.log")
    eventually(lambda: ":8080" in second.namespace.run("ss", "-Htln"))
    done = inner.run("--name", "web", "--expose", "80:8080", "echo", "started", check=False)
    assert (done.returncode, done.stdout) == (125, "")
    assert "gateway gw2 says: port 8080 is taken by another program" in done.stderr
    eventually(lambda: outside.is_refused(8080, GATEWAY))
    done = inner.run("--name", "web", "--expose", "80:gw1:8080", "echo", "started")
    assert done.stdout == "started\n"


def test_no_gateway_yet(net: Network) -> None:
    host, inner = net.add("gw1"), net.add("inner")
    outside = Outside(net.internet(host))
    inner.serve("--key-file", str(net.key))
    process = inner.spawn("--name", "echo", "--expose", "80:8080", "--expose", "80:gw1:8081", PYTHON, "-c", MANY_ECHO)
    inner.wait_for("echo:80")
    assert said(process) == (
        "appswitch: warning: no gateway is there yet: port 80 is exposed once one is\n"
        "appswitch: warning: no gateway gw1 is there yet: port 80 is exposed once one is\n"
    )
    host.serve("--key-file", str(net.key), "--join", inner.address, "--gateway", "--gateway-bind", GATEWAY)
    for port in (8080, 8081):
        eventually(lambda port=port: not outside.is_refused(port))
        client = outside.talk(port)
        assert client.ask("one") == "one"
        client.close()


def test_ipv6(net: Network, host: Host) -> None:
    """Over IPv6, too, where the program listens there; `--gateway-bind` may be given several times."""
    outside = Outside(net.internet(host))
    v6 = INTERNET6 + "101"
    host.serve("--gateway", "--gateway-bind", GATEWAY, "--gateway-bind", v6)
    process = nginx(host, "one", "--expose", "80:8080")
    assert said(process) == f"appswitch: port 80 is exposed at {GATEWAY}:8080 and [{v6}]:8080\n"
    assert {tuple(row["exposed"]) for row in host.rows("services")} == {(f"{GATEWAY}:8080", f"[{v6}]:8080")}
    assert outside.get(8080, f"[{v6}]") == f"one: {INTERNET6}1 to {v6}:8080"
    host.spawn("--name", "v4", "--expose", "80:8081", PYTHON, "-c", HELLO, "v4")
    host.wait_for("v4:80")
    assert not outside.is_refused(8081)
    assert outside.is_refused(8081, f"[{v6}]")
    (row,) = only(host.rows("services"), name="v4")
    assert row["exposed"] == [f"{GATEWAY}:8081"]


def test_a_restart_of_the_app_s_trap_handler(two: tuple[Host, Host, Host, Outside]) -> None:
    """It takes the app back, and what that exposes."""
    first, _, inner, outside = two
    inner.spawn("--name", "echo", "--expose", "80:8080", PYTHON, "-c", MANY_ECHO)
    first.wait_for("echo:80")
    inner.kill_server()
    inner.serve("--key-file", str(inner.directory.parent / "key"), "--join", first.address)
    inner.command("nodes", "--wait")
    first.command("nodes", "--wait")
    client = outside.talk(8080)
    assert client.ask("one") == "one"
    client.close()


def test_what_cannot_be_exposed(host: Host, outside: Outside) -> None:
    start(host)
    for flags, why in (
        (["--name", "dns", "--expose", "53/udp"], "gateways let in TCP only"),
        (["--name", "web", "--expose", "http"], "nothing that can be exposed"),
        (["--expose", "80"], "without a name and an IP"),
    ):
        done = host.run(*flags, "echo", "started", check=False)
        assert (done.returncode, done.stdout) == (2, "")
        assert why in done.stderr
        assert "hint: " in done.stderr
    assert not host.rows("ps")
    assert outside.is_refused(80)


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (["--gateway-bind", GATEWAY], "--gateway-bind is for gateways"),
        (["--gateway", "--gateway-bind", "192.0.2.77"], "192.0.2.77 is no address of this host"),
        (["--gateway", "--gateway-bind", "gw1"], "'gw1' is not an IP address"),
    ],
)
def test_where_no_gateway_can_listen(host: Host, flags: list[str], why: str) -> None:
    done = host.command("serve", *flags, check=False)
    assert done.returncode == 1
    assert why in done.stderr
    assert "hint: " in done.stderr
