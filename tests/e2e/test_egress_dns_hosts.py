"""Names outside for an inner host that has no way to any name server: a gateway's are asked."""

from __future__ import annotations

import pytest

from tests.e2e.egress import CLIENT, PYTHON, SERVER, Outside, World, own_world
from tests.e2e.test_udp_programs import DNSMASQ
from tests.harness import stop
from tests.hosts import INTERNET, Host

__all__ = ["own_world"]  # a fixture
pytestmark = [pytest.mark.root, pytest.mark.program("serf", "ip", "nsenter", "dnsmasq", "dig")]

NAMES = [
    f"--host-record=www.example.test,{SERVER}",
    "--txt-record=large.example.test," + ",".join(["x" * 250] * 8),
    "--local=/example.test/",
]


def start_name_server(world: World, address: str, answer: str = "") -> None:
    records = [f"--host-record=where.example.test,{answer}"] if answer else []
    world.outside.start("dnsmasq", *DNSMASQ, "--bind-interfaces", f"--listen-address={address}", *NAMES, *records)
    world.outside.listens(53, "udp")


def serve_again(world: World, host: Host, *flags: str) -> None:
    stop(host.server)
    (other, *_) = [each for each in world.net.hosts if each is not host]
    host.serve("--key-file", str(world.net.key), "--join", other.address, *flags)
    host.command("nodes", "--wait")


def dig(host: Host, *arguments: str) -> list[str]:
    return host.run(*CLIENT, "dig", "+short", "+tries=1", "+time=20", *arguments, timeout=60).stdout.splitlines()


@pytest.mark.program("curl")
def test_names_outside(own_world: World) -> None:
    world = own_world
    start_name_server(world, f"{INTERNET}2")
    for gateway in world.gateways:
        serve_again(world, gateway, "--gateway", "--dns-upstream", f"{INTERNET}2")
    world.outside.start(PYTHON, "-m", "http.server", "80", "--directory", str(world.net.key.parent / "g1"))
    world.outside.listens(80)
    assert dig(world.inner, "www.example.test") == [SERVER]
    assert dig(world.inner, "+tcp", "www.example.test") == [SERVER]
    (text,) = dig(world.inner, "large.example.test", "TXT")  # cut, and so asked again by TCP
    assert text.split() == [f'"{"x" * 250}"'] * 8
    assert not dig(world.inner, "nobody.example.test")
    done = world.inner.run(*CLIENT, "dig", "nobody.example.test")
    assert "NXDOMAIN" in done.stdout
    assert "200 OK" in world.inner.run(*CLIENT, "curl", "-sSI", "http://www.example.test/").stdout
    stop(world.g1.server)  # one is enough
    for _ in range(3):
        assert dig(world.inner, "www.example.test") == [SERVER]


def test_name_servers_of_its_own_are_asked_instead(own_world: World) -> None:
    """The inner host's are given, and reached by itself."""
    world = own_world
    start_name_server(world, f"{INTERNET}2", "192.0.2.1")
    for gateway in world.gateways:
        serve_again(world, gateway, "--gateway", "--dns-upstream", f"{INTERNET}2")
    assert dig(world.inner, "where.example.test") == ["192.0.2.1"]
    there = Outside(world.inner.namespace, world.inner.directory)
    there.start("dnsmasq", *DNSMASQ, "--port=5300", "--host-record=where.example.test,192.0.2.2")
    try:
        there.listens(5300, "udp")
        serve_again(world, world.inner, "--dns-upstream", f"{world.inner.address}:5300")
        assert dig(world.inner, "where.example.test") == ["192.0.2.2"]
    finally:
        there.end()


def test_a_rule_by_name_holds_at_both_gateways(own_world: World) -> None:
    """One of them has looked the name up, the other lets the connection out: it is told by which name."""
    world = own_world
    start_name_server(world, f"{INTERNET}2")
    world.outside.start(PYTHON, "-m", "http.server", "80", "--directory", str(world.net.key.parent / "g1"))
    world.outside.listens(80)
    for host in world.net.hosts:
        policy = host.directory / "policy.toml"
        policy.write_text('[[rule]]\nname = "www"\naction = "allow"\nto = { name = "*.example.test" }\n')
        own = ["--gateway", "--dns-upstream", f"{INTERNET}2"] if host in world.gateways else []
        serve_again(world, host, "--egress=deny", "--policy", str(policy), *own)
    code = """
import socket, sys
for host in ("www.example.test",) * 4 + (sys.argv[1],):
    try:
        socket.create_connection((host, int(sys.argv[2]))).close()
        print("let out")
    except OSError as error:
        print(type(error).__name__)
"""
    said = world.inner.run(*CLIENT, PYTHON, "-c", code, f"{INTERNET}3", "80").stdout.split("\n")
    assert said[:5] == ["let out"] * 4 + ["ConnectionRefusedError"]
