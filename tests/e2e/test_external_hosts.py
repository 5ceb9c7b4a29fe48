"""External servers and rules about the outside on several hosts: two gateways, and one without a route out."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_external import PSQL, start_postgres
from tests.e2e.test_policy_outside import KEEP, NGINX, REFUSED, curl
from tests.e2e.test_udp_programs import DNSMASQ
from tests.harness import PATIENCE, eventually, reload
from tests.hosts import INTERNET, Host, Network, network

pytestmark = [pytest.mark.root, pytest.mark.program("serf", "nginx", "curl", "dnsmasq", "psql", "setpriv")]

ONE, OTHER, NAMES = INTERNET + "1", INTERNET + "2", INTERNET + "9"
RECORDS = {"db.example": ONE, "www.pay.example": OTHER}
POLICY = """
[[rule]]
name = "web-pays"
action = "allow"
from = { name = "web" }
to = { name = "*.pay.example", port = 80 }
"""


class World:
    """The hosts and what is outside. Gateways let nobody leave but as POLICY says; the inner host has no policy."""

    def __init__(self, net: Network, directory: Path) -> None:
        self.directory = directory
        self.g1, self.g2, self.inner = (net.add(name) for name in ("g1", "g2", "inner"))
        self.outside = net.internet(self.g1, self.g2)
        records = [f"--address=/{name}/{ip}" for name, ip in RECORDS.items()]
        self.outside.start("dnsmasq", *DNSMASQ, *records, log=directory / "dnsmasq.log")
        (directory / "nginx.conf").write_text(NGINX.format(dir=directory))
        self.outside.start("nginx", "-c", f"{directory}/nginx.conf", log=directory / "nginx.log")
        self.policy = directory / "policy.toml"
        self.policy.write_text(POLICY)
        self.common = ["--key-file", str(net.key)]
        strict = ["--gateway", "--dns-upstream", NAMES, "--policy", str(self.policy), "--egress", "deny"]
        for host in net.hosts:
            join = [] if host is self.g1 else ["--join", self.g1.address]
            host.serve(*self.common, *join, *([] if host is self.inner else strict))
        for host in net.hosts:
            eventually(lambda host=host: len(host.tables()) == 3)
            host.command("nodes", "--wait")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with network() as net:
        yield World(net, tmp_path)


def healths(host: Host, name: str) -> list[set[tuple[str, str]]]:
    rows = [row for row in host.rows("external", "list") if row["name"] == name]
    return [{(each["gateway"], each["state"]) for each in row["health"]} for row in rows]


def test_from_a_host_without_a_way_out(world: World) -> None:
    """Registered there, too; one gateway dies, and with it nothing but its own connections."""
    start_postgres(world.outside, world.g1.directory)
    inner = world.inner
    inner.command("external", "add", "orders", "--ip", "10.9.9.9", "5432:db.example:5432")
    inner.command("nodes", "--wait")
    for host in (inner, world.g1):
        eventually(lambda host=host: healths(host, "orders") == [{("g1", "up"), ("g2", "up")}])
    where = "select host(inet_server_addr()), 40 + 2"
    for host in (inner, world.g1, world.g2):
        assert host.run("--name", "shop", *PSQL, where).stdout == f"{ONE}|42\n", host.name
    assert {row["real"] for row in world.g2.rows("services")} == {"tcp:db.example:5432"}
    told = [each for each in inner.events("--kind", "connect") if each["server_name"] == "orders"]
    assert [(each["medium"], each["address"], each["rule"]) for each in told] == [("gateway", "10.9.9.9", "grp")]
    world.g1.kill()
    for _ in range(3):
        assert inner.run("--name", "shop", *PSQL, where).stdout == f"{ONE}|42\n"
    done = world.g2.command("external", "rm", "orders", check=False)
    assert "remove it where it is registered: on inner" in done.stderr


def test_the_gateway_judges_again(world: World) -> None:
    """What the client's node would let pass."""
    assert curl(world.inner, "web", f"http://{ONE}/") == REFUSED
    denied = [each for host in (world.g1, world.g2) for each in host.events("--kind", "deny")]
    assert [(each["name"], each["app_node"], each["rule"], each["address"], each["medium"]) for each in denied] == [
        ("web", "inner", "egress", ONE, "gateway")
    ]
    (refused,) = world.inner.events("--kind", "refuse")
    assert (refused["name"], refused["errno"]) == ("web", "ECONNREFUSED")


def test_policy_is_as_for_apps(world: World) -> None:
    inner, address = world.inner, f"{ONE}:80"
    inner.command("external", "add", "site", "--tag", "grp=1", f"80:{address}")
    inner.command("nodes", "--wait")
    assert curl(inner, "web", "http://site/") == REFUSED
    assert inner.run("--tag", "grp=1", "curl", "-sS", "http://site/").stdout == f"{ONE}\n"
    (denied,) = [each for each in inner.events("--kind", "deny") if each["server_name"] == "site"]
    assert denied["rule"] == "grp"


def test_an_inner_host_without_a_gateway(world: World) -> None:
    for host in (world.g1, world.g2):
        host.server.terminate()
        host.server.wait()
    eventually(lambda: len(world.inner.tables()) == 1)
    world.inner.command("external", "add", "site", f"80:{ONE}:80")
    assert curl(world.inner, "web", "http://site/") == REFUSED
    (refused,) = world.inner.events("--kind", "refuse")
    assert (refused["reason"], refused["errno"]) == ("no gateway is there", "ENETUNREACH")
    assert [row["state"] for row in world.inner.rows("external", "list")] == ["unknown"]


ALLOW = '[[rule]]\nname = "there"\naction = "allow"\nto = { cidr = "%s" }\n'
CUT = '[[rule]]\nname = "no-more"\naction = "deny"\nto = { %s }\ncut = true\n'


@pytest.mark.parametrize(("to", "rule"), [("site", 'name = "site"'), (OTHER, f'cidr = "{OTHER}"')])
def test_a_reload_on_a_gateway_cuts_what_leaves_by_it(world: World, to: str, rule: str) -> None:
    """To an external server, and to another one outside."""
    inner, gateways = world.inner, (world.g1, world.g2)
    inner.command("external", "add", "site", f"80:{ONE}:80")
    inner.command("nodes", "--wait")

    def publish(text: str) -> None:
        for host in gateways:
            reload(host, world.policy, text, "rules=")

    publish(ALLOW % OTHER)
    client = inner.spawn("--name", "web", sys.executable, "-c", KEEP, to, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert client.stdout
    assert client.stdout.readline() == "in\n"
    publish((CUT % rule) + (ALLOW % OTHER))
    eventually(lambda: [each for host in gateways for each in host.events("--kind", "deny")])
    assert client.communicate("\n", timeout=PATIENCE)[0] == "cut\n"
    (denied,) = [each for host in gateways for each in host.events("--kind", "deny")]
    assert (denied["rule"], denied["name"], denied["app_node"]) == ("no-more", "web", "inner")


@pytest.mark.parametrize("is_strict", [False, True])
def test_one_app_to_one_name(world: World, is_strict: bool) -> None:
    """Both gateways take turns: the client's node tells by which name the address was found."""
    inner = world.inner
    if is_strict:
        inner.server.terminate()
        inner.server.wait()
        inner.serve(*world.common, "--join", world.g1.address, "--policy", str(world.policy), "--egress", "deny")
        inner.command("nodes", "--wait")
    assert curl(inner, "web", f"http://{OTHER}/") == REFUSED, "it hasn't been found by that name"
    assert [curl(inner, "web", "http://www.pay.example/") for _ in range(4)] == [OTHER] * 4
    assert curl(inner, "db", "http://www.pay.example/") == REFUSED
    assert curl(inner, "web", f"http://{ONE}/") == REFUSED
    told = [each for host in (world.g1, world.g2) for each in host.events("--kind", "connect")]
    assert {(each["node"], each["rule"]) for each in told} == {("g1", "web-pays"), ("g2", "web-pays")}
    (idle,) = [inner.spawn("--name", "web", "sleep", "60")]
    eventually(lambda: inner.rows("ps"))
    why = inner.command("why", "web", "www.pay.example:80").stdout
    assert "by way of the gateway g1 or g2" in why
    assert ("rule: web-pays" if is_strict else "rule: egress") in why
    assert idle.poll() is None


SEND = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.settimeout(10)
    s.connect((sys.argv[1], 7))
    try:
        s.send(b"hello")
        print(s.recv(9).decode())
    except OSError as error:
        print(type(error).__name__)
"""
ECHO = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.bind(("", 7))
    while True:
        data, peer = s.recvfrom(99)
        s.sendto(data, peer)
"""


def test_udp_by_a_gateway(world: World) -> None:
    """Judged there, too; the inner host would let it pass."""
    world.outside.start(sys.executable, "-c", ECHO, log=world.directory / "echo.log")
    eventually(lambda: world.outside.run("ss", "-Hlnu", "sport", "= :7"))
    world.policy.write_text(f'[[rule]]\nname = "echo"\naction = "allow"\nto = {{ cidr = "{ONE}", proto = "udp" }}\n')
    for host in (world.g1, world.g2):
        host.server.send_signal(signal.SIGHUP)
        eventually(lambda host=host: "rules=1" in host.log.read_text())
    assert world.inner.run("--name", "web", sys.executable, "-c", SEND, ONE).stdout == "hello\n"
    assert world.inner.run("--name", "web", sys.executable, "-c", SEND, OTHER).stdout == "ConnectionRefusedError\n"
    denied = [each for host in (world.g1, world.g2) for each in host.events("--kind", "deny")]
    assert {(each["rule"], each["address"], each["proto"], each["app_node"]) for each in denied} == {
        ("egress", OTHER, "udp", "inner")
    }
