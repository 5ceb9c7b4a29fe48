"""UDP between hosts. First, tests of one host with the servers on another than the clients; then what is only here."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

import pytest

from tests.e2e import test_udp, test_udp_flow, test_udp_programs
from tests.e2e.datagrams import ASK, PYTHON, SERVER
from tests.harness import eventually, stop
from tests.hosts import Host, Network, network

pytestmark = [pytest.mark.root, pytest.mark.program("serf", "ip", "nsenter")]

HERE_TOO = {
    test_udp: """both_ends_agree both_ends_agree_by_v6
        a_server_that_answers_from_another_socket a_sibling_by_loopback own_socket_before_the_siblings
        tcp_and_udp_on_one_port pktinfo_between_apps""",
    test_udp_flow: """each_instance_gets_its_share_of_connections a_burst_mostly_arrives in_an_epoll_set_before_connect
        a_refused_client_may_try_again a_connected_socket_that_names_its_peer
        connected_to_one_port_and_then_to_another many_clients_of_one_server""",
    test_udp_programs: """iperf2 iperf3 sockperf dnsmasq_on_a_port_of_its_own_and_v6 tftp quic netcat socat
        memcached""",
}
for module, names in HERE_TOO.items():
    globals().update({f"test_{name}": getattr(module, f"test_{name}") for name in names.split()})


class Split:
    """Like a Switch to tests, but servers (what is started in the background) are on another host than clients."""

    def __init__(self, clients: Host, servers: Host) -> None:
        self._clients, self._servers = clients, servers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._servers if name == "spawn" else self._clients, name)

    def logs(self) -> str:
        return self._clients.logs() + self._servers.logs()


@pytest.fixture(scope="module")
def hosts() -> Iterator[list[Host]]:
    """a, b and c, as they are for all tests that leave them as they are."""
    with network() as net:
        yield net.serve("a", "b", "c")


@pytest.fixture
def three(hosts: list[Host]) -> Iterator[list[Host]]:
    yield hosts
    for host in hosts:
        for process in host._started:
            if process is not host.server:
                stop(process)
        del host._started[1:]
    for host in hosts:
        eventually(lambda host=host: not host.rows("ps"))


@pytest.fixture
def switch(three: list[Host]) -> Split:
    return Split(three[0], three[1])


@pytest.fixture
def net() -> Iterator[Network]:
    with network() as made:
        yield made


def serve(host: Host, *flags: str, label: str = "", port: int = 7000) -> subprocess.Popen[str]:
    return host.spawn(*flags, PYTHON, "-c", SERVER, "0.0.0.0", str(port), label)


@pytest.mark.program("dnsmasq", "dig")
@pytest.mark.parametrize("how_bound", ["any", "--bind-interfaces", "--bind-dynamic"])
def test_a_dns_server(three: list[Host], how_bound: str) -> None:
    """Its client's own DNS server is in between, on the same port."""
    a, b, _ = three
    flags = [
        *test_udp_programs.DNSMASQ,
        "--address=/example.test/1.2.3.4",
        *([how_bound] if how_bound != "any" else []),
    ]
    b.spawn("--ip", "10.9.9.1", "--name", "dns", "dnsmasq", *flags)
    a.wait_for("dns:53")
    for server in ("@dns", "@10.9.9.1"):
        asked = a.run("--ip", "10.9.9.9", "dig", "+tries=2", "+short", "+notcp", server, "a.example.test")
        assert asked.stdout == "1.2.3.4\n"


class Client:
    """A program on a host that asks whenever it is told to, until somebody answers. how: connected or unconnected."""

    def __init__(self, host: Host, how: str) -> None:
        with (host.directory / "client.log").open("a") as errors:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors}
            self.process = host.spawn("--ip", "10.9.9.2", PYTHON, "-c", test_udp_flow.PATIENT, how, **pipes)
        self._host, self._asked = host, 0

    def ask(self) -> str:
        """Who has answered; both ends agree on who they are."""
        self.say()
        return self.hear()

    def say(self) -> None:
        assert self.process.stdin
        self._asked += 1
        self.process.stdin.write(f"{self._asked}\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        assert self.process.stdout
        said = self.process.stdout.readline()
        assert said, f"it has ended\n{self._host.logs()}"
        label, _, rest = said.partition(" ")
        assert rest in ("('10.9.9.1', 7000) True\n", ""), rest
        return label.strip()

    def close(self) -> None:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdout.close()
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        stop(self.process)


@pytest.fixture(params=["connected", "unconnected"])
def how(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


def test_one_socket_talks_to_apps_on_three_hosts(three: list[Host]) -> None:
    for number, host in enumerate(three, 1):
        serve(host, "--ip", f"10.9.9.1{number}", "--name", f"server{number}", label=str(number))
    three[0].wait_for("server1:7000", "server2:7000", "server3:7000")
    code = """
c = udp()
for round in range(5):
    for i in (3, 1, 2):
        c.sendto(b"%d" % i, (f"10.9.9.1{i}", 7000))
    answers = [c.recvfrom(999) for _ in range(3)]
    for answer, source in answers:
        label, data, seen, at = eval(answer)
        assert source == (f"10.9.9.1{label}", 7000), (answer, source)
        assert seen == ("10.9.9.2", c.getsockname()[1]), (seen, c)
    print(*sorted(source[0][-1] for _, source in answers))
"""
    assert three[0].run("--ip", "10.9.9.2", PYTHON, "-c", ASK + code).stdout.splitlines() == ["1 2 3"] * 5


def test_an_instance_here_comes_first_and_others_take_over(three: list[Host], how: str) -> None:
    a = three[0]
    servers = {host.name: serve(host, "--ip", "10.9.9.1", "--name", "web", label=host.name) for host in three}
    eventually(lambda: len(a.rows("services")) == 3)
    with closing(Client(a, how)) as client:
        assert client.ask() == "a"
        stop(servers["a"])
        first = client.ask()
        assert first in ("b", "c")
        stop(servers[first])
        (last,) = {"b", "c"} - {first}
        assert client.ask() == last


def test_an_app_that_moves(three: list[Host], how: str) -> None:
    a, b, c = three
    server = serve(c, "--ip", "10.9.9.1", "--name", "web", label="c")
    a.wait_for("web:7000")
    with closing(Client(a, how)) as client:
        assert client.ask() == "c"
        for host in (b, c, b):
            stop(server)
            eventually(lambda: not a.rows("services"))
            server = serve(host, "--ip", "10.9.9.1", "--name", "web", label=host.name)
            assert client.ask() == host.name


def test_where_nobody_receives_any_more(three: list[Host]) -> None:
    """The client's own kernel refuses, as if its datagram had come back from the server's host."""
    a, b, _ = three
    server = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 7000))
other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
other.bind(("", 7001))
data, peer = s.recvfrom(99)
s.close()
other.sendto(b"closed", peer)
other.recv(99)
"""
    b.spawn("--name", "server", PYTHON, "-c", server)
    a.wait_for("server:7000", "server:7001")
    code = """
c, other = udp(), udp()
c.connect(("server", 7000))
other.bind(("", c.getsockname()[1]))
c.send(b"one")
assert other.recv(99) == b"closed"
for _ in range(3):
    c.send(b"two")
    try:
        print(c.recv(99))
    except ConnectionRefusedError:
        print("refused")
        break
"""
    assert a.run("--name", "client", PYTHON, "-c", ASK + code).stdout == "refused\n"


def test_policy_holds_on_both_hosts(net: Network) -> None:
    """The client's host knows no policy, but its server's does."""
    a, b = net.add("a"), net.add("b")
    policy = net.key.with_name("policy.toml")
    policy.write_text(
        '[[rule]]\nname = "no-strangers"\naction = "deny"\nfrom = { name = "stranger" }\nto = { name = "db" }\n'
    )
    a.serve("--key-file", str(net.key))
    b.serve("--key-file", str(net.key), "--join", a.address, "--policy", str(policy))
    for host in (a, b):
        eventually(lambda host=host: set(host.tables()) == {"a", "b"})
    server = serve(b, "--name", "db", "--tag", "grp=2")
    a.wait_for("db:7000")
    code = """
c = udp()
c.settimeout(0.5)
try:
    if sys.argv[1] == "connected":
        c.connect(("db", 7000))
        print(ask(c, b"x")[0][1])
    else:
        print(ask(c, b"x", ("db", 7000))[0][1])
except (ConnectionRefusedError, TimeoutError):
    print("unheard")
"""
    for flags, said in (
        (("--name", "friend", "--tag", "grp=2"), "b'x'\n"),
        (("--name", "other", "--tag", "grp=1"), "unheard\n"),
        (("--name", "stranger", "--tag", "grp=2"), "unheard\n"),
    ):
        for how in ("connected", "unconnected"):
            assert a.run(*flags, PYTHON, "-c", ASK + code, how).stdout == said
    log = server.log.read_text()  # type: ignore[attr-defined]
    assert log.count("b'x'") == 2, log
    assert {each["rule"] for each in b.events("--kind", "deny")} == {"no-strangers"}


def test_a_host_that_is_cut_off_and_joined_again(net: Network, how: str) -> None:
    a, b = net.serve("a", "b")
    serve(b, "--ip", "10.9.9.1", "--name", "web", label="b")
    a.wait_for("web:7000")
    with closing(Client(a, how)) as client:
        assert client.ask() == "b"
        b.cut_off()
        assert a.run("--ip", "10.9.9.3", PYTHON, "-c", ASK + "udp().connect(('web', 7000)); print('soon')").stdout
        b.join_again()
        assert client.ask() == "b"


def test_a_client_that_connects_while_the_servers_host_is_cut_off(net: Network) -> None:
    """It is refused, hears of that when it receives, and asks again by itself: no news tell it to."""
    a, b = net.serve("a", "b")
    serve(b, "--ip", "10.9.9.1", "--name", "web", label="b")
    a.wait_for("web:7000")
    b.cut_off()
    with closing(Client(a, "connected")) as client:
        eventually(lambda: " refuse " in a.log.read_text())
        client.say()
        b.join_again()
        assert client.hear() == "b"


@pytest.mark.parametrize("which", ["the client's", "the server's"])
def test_a_trap_handler_that_is_restarted(net: Network, how: str, which: str) -> None:
    """The datagrams between two apps go on, the sockets are the same."""
    a, b = net.serve("a", "b")
    serve(b, "--ip", "10.9.9.1", "--name", "web", label="b")
    a.wait_for("web:7000")
    with closing(Client(a, how)) as client:
        assert client.ask() == "b"
        host, other = (a, b) if which == "the client's" else (b, a)
        for _ in range(2):
            stop(host.server)
            host.serve("--key-file", str(net.key), "--join", other.address)
            assert client.ask() == "b"
