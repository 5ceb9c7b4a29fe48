"""Datagrams to the outside by gateways: from an inner host without a route out."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from contextlib import closing

import pytest

from tests.e2e.datagrams import ASK
from tests.e2e.egress import CLIENT, NOWHERE, PYTHON, SERVER, SERVER6, World, own_world, shared, via, world
from tests.e2e.test_udp_programs import DNSMASQ
from tests.harness import eventually, stop
from tests.hosts import INTERNET, Host, only

__all__ = ["own_world", "shared", "world"]  # fixtures
pytestmark = [pytest.mark.root, pytest.mark.program("serf", "ip", "nsenter")]

# Tells who asks, and where it was asked.
SERVE = """
import socket, sys
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[1], int(sys.argv[2])))
while True:
    data, peer = s.recvfrom(65535)
    s.sendto(repr((data[:100], peer[:2], s.getsockname()[:2])).encode(), peer)
"""


def serve(world: World, *addresses: str, port: int = 7000) -> None:
    for ip in addresses:
        world.outside.start(PYTHON, "-c", SERVE, ip, str(port))
        eventually(lambda ip=ip: ip in world.outside.namespace.run("ss", "-Huln", f"sport = :{port}"))


def run(host: Host, code: str, *arguments: str) -> list[str]:
    return host.run(*CLIENT, PYTHON, "-c", ASK + code, *arguments, timeout=60).stdout.splitlines()


@pytest.mark.parametrize("how", ["connected", "unconnected"])
def test_the_gateways_in_turns(world: World, how: str) -> None:
    serve(world, SERVER)
    code = """
how, host = sys.argv[1:]
for i in range(4):
    c = udp()
    if how == "connected":
        c.connect((host, 7000))
        assert c.getpeername() == (host, 7000) and c.getsockname()[0] == "10.9.9.2", c
    for _ in range(3):
        (data, seen, at), source = ask(c, b"%d" % i, None if how == "connected" else (host, 7000))
        assert data == b"%d" % i and source == at == (host, 7000), (data, source, at)
    print(seen[0])
"""
    assert Counter(run(world.inner, code, how, SERVER)) == {via(each): 2 for each in world.gateways}


def test_ip_version_6_and_a_mapped_address(world: World) -> None:
    serve(world, SERVER, SERVER6)
    code = """
for host in sys.argv[1:]:
    for connected in (True, False):
        c = udp("::")
        if connected:
            c.connect((host, 7000))
            assert c.getpeername()[:2] == (host, 7000)
        (data, seen, at), source = ask(c, b"x", None if connected else (host, 7000))
        assert source == (host, 7000), source
        print(at[0])
"""
    assert run(world.inner, code, SERVER6, f"::ffff:{SERVER}") == [SERVER6] * 2 + [SERVER] * 2


def test_one_socket_talks_to_servers_outside_and_to_apps(world: World) -> None:
    others = [f"{INTERNET}{number}" for number in (1, 2, 3)]
    serve(world, *others)
    for host in (world.inner, world.g1):
        host.spawn("--name", f"app-{host.name}", PYTHON, "-c", SERVE, "0.0.0.0", "7000")
    world.inner.wait_for("app-inner:7000", "app-g1:7000")
    code = """
c = udp()
c.bind(("", 5000))
places = [socket.gethostbyname(each) for each in sys.argv[1:]]
for i in range(3):
    for place in places:
        c.sendto(b"%d" % i, (place, 7000))
    heard = [c.recvfrom(999) for _ in places]
    assert {source for _, source in heard} == {(place, 7000) for place in places}, heard
    for answer, (ip, _) in heard:
        if ip not in sys.argv[1:]:
            assert eval(answer)[1] == ("10.9.9.2", 5000), answer
print("fine")
"""
    assert run(world.inner, code, *others, "app-inner", "app-g1") == ["fine"]


def test_nobody_receives_there(world: World) -> None:
    code = """
c = udp()
c.connect((sys.argv[1], 7001))
for _ in range(2):
    try:
        c.send(b"x")
        print(c.recv(9))
    except ConnectionRefusedError:
        print("refused")
try:
    c = udp()
    c.connect((sys.argv[2], 7001))
except OSError as error:
    print(errno.errorcode[error.errno])
try:
    udp().sendto(b"x", (sys.argv[2], 7001))
except OSError as error:
    print(errno.errorcode[error.errno])
"""
    assert run(world.inner, code, SERVER, NOWHERE) == ["refused"] * 2 + ["ENETUNREACH"] * 2


def test_a_gateway_lets_nobody_to_the_ports_of_the_cluster(world: World) -> None:
    code = """
for place in sys.argv[1:]:
    c = udp()
    c.settimeout(0.3)
    c.connect((place, 7946))
    try:
        c.send(b"x")
        print(c.recv(9))
    except (ConnectionRefusedError, TimeoutError):
        print("unheard")
"""
    run(world.inner, code, *(host.address for host in world.net.hosts))
    refused = [row for row in world.inner.events("--kind", "refuse") if row["port"] == 7946]
    assert {row["address"] for row in refused} == {host.address for host in world.net.hosts}


def test_both_nodes_list_it_and_tell_of_it(world: World) -> None:
    serve(world, SERVER)
    client = Client(world.inner)
    with closing(client):
        assert client.ask()
        (mine,) = world.inner.rows("connections")
        shown = ("client_name", "client_node", "dest_ip", "dest_port", "proto", "medium", "state")
        seen = ["client", "inner", SERVER, 7000, "udp", "gateway", "established"]
        assert [mine[key] for key in shown] == seen
        assert (mine["client_ip"], mine["node"]) == ("10.9.9.2", "inner")
        (theirs,) = [row for each in world.gateways for row in each.rows("connections")]
        assert [theirs[key] for key in shown] == seen
        by = next(each for each in world.gateways if each.name == theirs["node"])
        assert theirs["client_ip"] == via(by)
        told = only(world.inner.events("--kind", "connect"), proto="udp")[-1]
        assert (told["medium"], told["reason"]) == ("gateway", f"by the gateway {by.name}")
        assert only(by.events("--kind", "connect"), proto="udp")[-1]["app"] == told["app"]
    for host in world.net.hosts:
        eventually(lambda host=host: not host.rows("connections"))


class Client:
    """A program that asks the server outside whenever it is told to, until it answers; it says as whom it was seen."""

    CODE = (
        ASK
        + """
c = udp()
c.settimeout(0.2)
if sys.argv[1] == "connected":
    c.connect((sys.argv[2], 7000))
for line in sys.stdin:
    while True:
        try:
            (data, seen, _), _ = ask(c, line.encode(), None if sys.argv[1] == "connected" else (sys.argv[2], 7000))
            if data == line.encode():
                break
        except OSError:
            pass
    print(seen[0], flush=True)
"""
    )

    def __init__(self, host: Host, how: str = "connected") -> None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = host.spawn(*CLIENT, PYTHON, "-c", self.CODE, how, SERVER, **pipes)
        self._asked = 0

    def ask(self) -> str:
        assert self.process.stdin
        assert self.process.stdout
        self._asked += 1
        self.process.stdin.write(f"{self._asked}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def close(self) -> None:
        assert self.process.stdin
        assert self.process.stdout
        with self.process.stdin, self.process.stdout:
            stop(self.process)


@pytest.mark.parametrize("how", ["connected", "unconnected"])
def test_a_gateway_that_is_cut_off(own_world: World, how: str) -> None:
    """The other one takes over."""
    world = own_world
    serve(world, SERVER)
    with closing(Client(world.inner, how)) as client:
        first = client.ask()
        (by,) = [each for each in world.gateways if via(each) == first]
        (other,) = [each for each in world.gateways if each is not by]
        by.cut_off()
        assert client.ask() == via(other)


@pytest.mark.parametrize("which", ["inner", "gateway"])
def test_a_trap_handler_that_is_restarted(own_world: World, which: str) -> None:
    world = own_world
    serve(world, SERVER)
    with closing(Client(world.inner)) as client:
        first = client.ask()
        (by,) = [each for each in world.gateways if via(each) == first]
        host, flags = (world.inner, []) if which == "inner" else (by, ["--gateway"])
        stop(host.server)
        (other,) = [each for each in world.gateways if each is not by]
        host.serve("--key-file", str(world.net.key), "--join", other.address, *flags)
        assert client.ask() in {via(each) for each in world.gateways}


# --- real programs


@pytest.mark.program("dnsmasq", "dig")
def test_dig(world: World) -> None:
    """A name server of its own choice, at another port than 53, which is our own server's."""
    world.outside.start("dnsmasq", *DNSMASQ, "--port=5353", "--address=/example.test/192.0.2.1")
    world.outside.listens(5353, "udp")
    for how in ("+notcp", "+tcp"):
        asked = ["dig", how, "+short", "+tries=2", "-p", "5353", f"@{SERVER}", "a.example.test"]
        assert world.inner.run(*asked).stdout == "192.0.2.1\n"


@pytest.mark.program("gtlsserver", "gtlsclient", "openssl")
def test_quic(world: World) -> None:
    directory = world.outside.directory
    key, certificate = str(directory / "key.pem"), str(directory / "cert.pem")
    make = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=quic"]
    subprocess.run(["openssl", *make, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    data = os.urandom(2_000_000)
    (directory / "file").write_bytes(data)
    (directory / "got").mkdir()
    world.outside.start("gtlsserver", "-q", "-d", str(directory), "0.0.0.0", "4433", key, certificate)
    world.outside.listens(4433, "udp")
    client = ["gtlsclient", "-q", "--exit-on-all-streams-close", f"--download={directory}/got"]
    world.inner.run(*client, SERVER, "4433", f"https://{SERVER}:4433/file")
    assert (directory / "got/file").read_bytes() == data


@pytest.mark.program("iperf")
def test_iperf(world: World) -> None:
    world.outside.start("iperf", "-s", "-u")
    world.outside.listens(5001, "udp")
    done = world.inner.run("iperf", "-u", "-c", SERVER, "-t", "1", "-b", "5M", timeout=60)
    assert "Server Report" in done.stdout
