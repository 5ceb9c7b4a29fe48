"""Rules about what is outside: real programs in a namespace that the gateway alone reaches."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from attrs import frozen

from tests.e2e.test_udp_programs import DNSMASQ
from tests.harness import PATIENCE, eventually
from tests.hosts import INTERNET, NETWORK, Host, Namespace, network

pytestmark = [pytest.mark.root, pytest.mark.program("serf", "nginx", "curl", "dnsmasq")]

PAY, OTHER, NAMES = INTERNET + "1", INTERNET + "2", INTERNET + "9"

POLICY = """
[[rule]]
name = "web-pays"
action = "allow"
from = { name = "web" }
to = { name = "*.pay.example", port = 80 }

[[rule]]
name = "clock"
action = "audit"
to = { cidr = "192.88.99.2/32", port = 123, proto = "udp" }
"""

# The last three are of somebody who would like to get in.
RECORDS = {
    "www.pay.example": PAY,
    "other.example": OTHER,
    "loopback.pay.example": "127.0.0.1",
    "host.pay.example": NETWORK + "1",
    "app.pay.example": "10.9.9.1",
}

NGINX = """
daemon off; pid {dir}/nginx.pid; error_log {dir}/nginx-error.log; user root;
events {{}}
http {{ access_log off; server {{ listen 80; return 200 "$server_addr\\n"; }} }}
"""


@frozen
class World:
    host: Host
    outside: Namespace


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A gateway that lets nobody out but as POLICY says; nginx and a name server are outside."""
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY)
    with network() as net:
        gateway = net.add("gw")
        outside = net.internet(gateway)
        (tmp_path / "nginx.conf").write_text(NGINX.format(dir=tmp_path))
        outside.start("nginx", "-c", f"{tmp_path}/nginx.conf", log=tmp_path / "nginx.log")
        records = [f"--address=/{name}/{ip}" for name, ip in RECORDS.items()]
        outside.start("dnsmasq", *DNSMASQ, "--local-ttl=60", *records, log=tmp_path / "dnsmasq.log")
        flags = ("--gateway", "--egress", "deny", "--policy", str(policy), "--dns-upstream", NAMES)
        gateway.serve("--key-file", str(net.key), *flags)
        yield World(gateway, outside)


@pytest.fixture
def host(world: World) -> Host:
    return world.host


def curl(host: Host, app: str, url: str) -> str:
    """What `app` gets, or curl's exit status."""
    done = host.run("--name", app, "curl", "-sS", "-m", "10", url, check=False)
    return done.stdout.strip() or str(done.returncode)


REFUSED = "7"  # of curl(1)


def test_only_one_app_to_one_name(host: Host) -> None:
    assert curl(host, "web", f"http://{PAY}/") == REFUSED, "nothing says yet that it has this name"
    assert curl(host, "web", "http://www.pay.example/") == PAY
    assert curl(host, "web", f"http://{PAY}/") == PAY, "now it has"
    assert curl(host, "web", "http://www.pay.example:81/") == REFUSED
    assert curl(host, "web", "http://other.example/") == REFUSED
    assert curl(host, "db", "http://www.pay.example/") == REFUSED
    denied = host.events("--kind", "deny")
    assert {(each["name"], each["rule"], each["address"]) for each in denied} == {
        ("web", "egress", PAY), ("web", "egress", OTHER), ("db", "egress", PAY)
    }  # fmt: skip
    assert all("serve --egress" in each["reason"] for each in denied)
    told = host.events("--kind", "connect")
    assert [each["rule"] for each in told if each["address"] == PAY] == ["web-pays"] * 2


def test_why(host: Host) -> None:
    def why(client: str, dest: str) -> tuple[int, str, str, str]:
        done = host.command("why", client, dest, "--json", check=False)
        row = json.loads(done.stdout)
        return done.returncode, row["verdict"], row["rule"], row["ip"]

    idle = [host.spawn("--name", name, "sleep", "60") for name in ("web", "db")]
    eventually(lambda: len(host.rows("ps")) == len(idle))
    assert why("web", "www.pay.example:80") == (0, "outside", "web-pays", PAY), "as an app that asks for it first"
    assert why("web", f"{PAY}:80") == (1, "deny", "egress", PAY)
    assert why("db", "www.pay.example:80") == (1, "deny", "egress", PAY)
    assert why("web", "host.pay.example:80") == (1, "deny", "egress", NETWORK + "1")
    assert why("web", f"{OTHER}:123/udp") == (0, "audit", "clock", OTHER)
    nobody = host.command("why", "web", "nobody.example:80", check=False)
    assert (nobody.returncode, nobody.stdout) == (1, "")
    assert "nobody.example" in nobody.stderr


def test_names_that_stand_for_addresses_inside_open_nothing(host: Host, tmp_path: Path) -> None:
    """The host's own nginx, an app that `grp` keeps from web, and web's own loopback, where nobody is."""
    host.namespace.start("nginx", "-c", f"{tmp_path}/nginx.conf", log=tmp_path / "inside.log")
    server = [sys.executable, "-m", "http.server", "80"]
    host.spawn("--name", "secret", "--ip", "10.9.9.1", "--tag", "grp=1", *server)
    host.wait_for("secret:80")
    eventually(lambda: host.namespace.run("curl", "-s", f"http://{NETWORK}1/") == NETWORK + "1\n")
    for name in ("host", "app", "loopback"):
        assert curl(host, "web", f"http://{name}.pay.example/") == REFUSED, name
    assert curl(host, "web", "http://www.pay.example/") == PAY


SEND = """
import socket, sys
for port in 123, 124:
    for connected in True, False:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            try:
                if connected:
                    s.connect((sys.argv[1], port))
                    s.send(b"x")
                else:
                    s.sendto(b"x", (sys.argv[1], port))
                print("sent")
            except OSError as error:
                print(type(error).__name__)
"""


def test_udp(host: Host) -> None:
    done = host.run("--name", "db", sys.executable, "-c", SEND, OTHER)
    assert done.stdout.split() == ["sent"] * 2 + ["ConnectionRefusedError"] * 2
    audited = host.events("--kind", "audit")
    assert [(each["rule"], each["port"], each["proto"]) for each in audited] == [("clock", 123, "udp")] * 2


KEEP = """
import socket, sys
with socket.create_connection((sys.argv[1], 80)) as s:
    print("in", flush=True)
    sys.stdin.readline()
    try:
        s.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
        print(s.recv(4).decode() or "cut")
    except OSError:
        print("cut")
"""
CUT = '[[rule]]\nname = "no-more"\naction = "deny"\nto = { name = "www.pay.example" }\ncut = true\n'


def test_a_reload_cuts_connections_to_the_outside(host: Host, tmp_path: Path) -> None:
    """By the name that it was dialled by; one to another name goes on."""
    file = tmp_path / "policy.toml"
    clients: list[subprocess.Popen[str]] = []
    for number, name in enumerate(("www.pay.example", "other.example"), 1):
        file.write_text(POLICY.replace("*.pay.example", name))
        host.server.send_signal(signal.SIGHUP)
        eventually(lambda number=number: host.log.read_text().count("rules=2") == number)
        client = host.spawn(
            "--name", "web", sys.executable, "-c", KEEP, name, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert client.stdout
        assert client.stdout.readline() == "in\n"
        clients.append(client)
    file.write_text(CUT)
    host.server.send_signal(signal.SIGHUP)
    eventually(lambda: host.events("--kind", "deny"))
    assert [each["dest_ip"] for each in host.rows("connections")] == [OTHER]
    assert [each.communicate("\n", timeout=PATIENCE)[0] for each in clients] == ["cut\n", "HTTP\n"]
    (said,) = host.events("--kind", "deny")
    assert (said["rule"], said["address"], said["server_app"]) == ("no-more", PAY, None)


# --- clients outside

ECHO = """
import socket, threading
def echo(end):
    while data := end.recv(99):
        end.sendall(data)
listener = socket.create_server(("", 7000))
while True:
    threading.Thread(target=echo, args=(listener.accept()[0],), daemon=True).start()
"""
ASK = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], 7000), timeout=30, source_address=(sys.argv[2], 0)) as s:
        for line in sys.stdin:
            s.sendall(line.encode())
            print(s.recv(9).decode().strip() or "cut", flush=True)
except OSError:
    print("cut", flush=True)
"""
NOT_FROM_THERE = f'[[rule]]\nname = "not-from-there"\naction = "deny"\nfrom = {{ cidr = "{PAY}" }}\ncut = true\n'


def test_clients_outside_by_their_addresses(world: World, host: Host, tmp_path: Path) -> None:
    """New ones are refused; of those that are there, those that the rule cuts end."""
    server = host.spawn("--name", "web", "--expose", "7000:7000", sys.executable, "-c", ECHO)
    host.wait_for("web:7000")
    gateway = INTERNET + "101"

    def client(source: str) -> subprocess.Popen[str]:
        command = [*world.outside.enter, sys.executable, "-c", ASK, gateway, source]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(process: subprocess.Popen[str]) -> str:
        assert process.stdin
        assert process.stdout
        with suppress(BrokenPipeError):  # it has been reset before it could ask
            process.stdin.write("hello\n")
            process.stdin.flush()
        return process.stdout.readline().strip()

    clients = [client(source) for source in (PAY, OTHER)]
    assert [ask(each) for each in clients] == ["hello", "hello"]
    (tmp_path / "policy.toml").write_text(NOT_FROM_THERE)
    host.server.send_signal(signal.SIGHUP)
    eventually(lambda: host.events("--kind", "deny"))
    assert [ask(each) for each in clients] == ["cut", "hello"]
    again = [client(source) for source in (PAY, OTHER)]
    assert [ask(each) for each in again] == ["cut", "hello"]
    for each in (*clients, *again):
        each.communicate(timeout=PATIENCE)
    assert {(each["rule"], each["server_name"]) for each in host.events("--kind", "deny")} == {
        ("not-from-there", "web")
    }
    assert server.poll() is None


SINK = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.bind(("", 123))
    while True:
        s.recv(9)
"""
SEND_AGAIN = """
import errno, socket, sys
sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
sockets[0].connect((sys.argv[1], 123))
for line in sys.stdin:
    for s in sockets:
        try:
            s.send(b"x") if s is sockets[0] else s.sendto(b"x", (sys.argv[1], 123))
            print("sent", end=" ")
        except OSError as error:
            print(errno.errorcode[error.errno], end=" ")
    print(flush=True)
"""


def test_a_reload_reaches_udp_sockets_that_are_there(world: World, host: Host, tmp_path: Path) -> None:
    """One that is connected, and one that has sent there before."""
    world.outside.start(sys.executable, "-c", SINK, log=tmp_path / "sink.log")
    eventually(lambda: world.outside.run("ss", "-Hlnu", "sport", "= :123"))
    sender = host.spawn(
        "--name", "db", sys.executable, "-c", SEND_AGAIN, OTHER, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert sender.stdin
    assert sender.stdout

    def send() -> list[str]:
        assert sender.stdin
        assert sender.stdout
        sender.stdin.write("\n")
        sender.stdin.flush()
        return sender.stdout.readline().split()

    assert [send() for _ in range(3)] == [["sent", "sent"]] * 3
    file = tmp_path / "policy.toml"
    for text, sent in ((POLICY, "sent"), ("", "ECONNREFUSED"), (POLICY, "sent")):
        file.write_text(text)
        before = host.log.read_text().count("rules=")
        host.server.send_signal(signal.SIGHUP)
        eventually(lambda before=before: host.log.read_text().count("rules=") > before)
        assert send() == [sent] * 2
    sender.communicate(timeout=PATIENCE)
