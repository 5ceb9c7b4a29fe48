"""Datagrams between apps: who sees whom, under which address."""

from __future__ import annotations

import subprocess

import pytest

from appswitch.host.paths import shim_path
from tests.e2e.datagrams import AGREE, ASK, PYTHON, SERVER, run, serve
from tests.harness import PATIENCE, Switch, eventually


def preloaded(switch: Switch, code: str, *arguments: str, **identity: str) -> subprocess.Popen[str]:
    """A program with nothing but LD_PRELOAD and the environment; its output goes to "preloaded.log"."""
    environment = {f"APPSWITCH_{key.upper()}": value for key, value in identity.items()}
    with (switch.directory / "preloaded.log").open("w") as output:
        return switch._popen(
            [PYTHON, "-c", code, *arguments],
            env={**switch.environment, "LD_PRELOAD": str(shim_path()), **environment},
            stdout=output,
            stderr=output,
        )


@pytest.mark.parametrize("how", ["connected", "unconnected"])
@pytest.mark.parametrize("bound", ["0.0.0.0", "10.9.9.1", "::", "::ffff:10.9.9.1"])
@pytest.mark.parametrize("client", ["--ip 10.9.9.2", "", "--name client --no-netns"])
def test_both_ends_agree(switch: Switch, how: str, bound: str, client: str) -> None:
    serve(switch, "--ip", "10.9.9.1", "--name", "server", bound=bound)
    switch.wait_for("server:7000")
    source = {"--ip 10.9.9.2": "10.9.9.2", "": "169.254."}.get(client, "100.")
    mapped = "::ffff:" if ":" in bound else ""
    for dest in ("10.9.9.1", "server"):
        lines = switch.run(*client.split(), PYTHON, "-c", AGREE, how, dest, "7000").stdout.splitlines()
        assert len(lines) == 6
        assert len(set(lines)) == 1
        assert lines[0].startswith(mapped + source)
        assert lines[0].endswith(" 10.9.9.1")


@pytest.mark.parametrize("how", ["connected", "unconnected"])
@pytest.mark.parametrize("bound", ["::", "fd00:9::1"])
def test_both_ends_agree_by_v6(switch: Switch, how: str, bound: str) -> None:
    serve(switch, "--ip", "fd00:9::1", "--name", "server", bound=bound)
    switch.wait_for("server:7000")
    for dest in ("fd00:9::1", "server"):
        lines = switch.run("--ip", "fd00:9::2", PYTHON, "-c", AGREE, how, dest, "7000").stdout.splitlines()
        assert lines == ["fd00:9::2 fd00:9::1"] * 6


@pytest.mark.parametrize("kind", ["--no-netns", "LD_PRELOAD"])
def test_a_server_without_a_namespace(switch: Switch, kind: str) -> None:
    if kind == "LD_PRELOAD":
        preloaded(switch, SERVER, "0.0.0.0", "7000", "", name="server", ip="10.9.9.1")
    else:
        serve(switch, kind, "--ip", "10.9.9.1", "--name", "server")
    switch.wait_for("server:7000")
    for how in ("connected", "unconnected"):
        lines = switch.run("--ip", "10.9.9.2", PYTHON, "-c", AGREE, how, "server", "7000").stdout.splitlines()
        assert lines == ["10.9.9.2 10.9.9.1"] * 6
        lines = switch.run(
            "--no-netns", "--ip", "10.9.9.3", PYTHON, "-c", AGREE, how, "server", "7000"
        ).stdout.splitlines()
        assert lines == ["10.9.9.3 10.9.9.1"] * 6


@pytest.mark.parametrize("how", ["connected", "unconnected"])
def test_a_client_with_a_preload_only(switch: Switch, how: str) -> None:
    serve(switch, "--ip", "10.9.9.1", "--name", "server")
    switch.wait_for("server:7000")
    client = preloaded(switch, AGREE, how, "server", "7000", name="client", ip="10.9.9.2")
    assert client.wait(PATIENCE) == 0, switch.logs()
    assert (switch.directory / "preloaded.log").read_text().splitlines() == ["10.9.9.2 10.9.9.1"] * 6


def test_one_socket_talks_to_three_apps(switch: Switch) -> None:
    """Unconnected, as a resolver's or a monitor's: every answer with the address that was asked."""
    for i, bound in enumerate(("0.0.0.0", "10.9.9.12", "::"), 1):
        serve(switch, "--ip", f"10.9.9.1{i}", "--name", f"server{i}", bound=bound, label=str(i))
    switch.wait_for("server1:7000", "server2:7000", "server3:7000")
    code = """
c = udp()
for round in range(5):
    for i in (3, 1, 2):
        c.sendto(b"%d" % i, (f"10.9.9.1{i}", 7000))
    answers = [c.recvfrom(999) for _ in range(3)]
    for answer, source in answers:
        label, data, seen, at = eval(answer)
        assert source == (f"10.9.9.1{label}", 7000), (answer, source)
        assert data.decode() == label
        assert seen[0].removeprefix("::ffff:") == "10.9.9.2" and seen[1] == c.getsockname()[1], (seen, c)
    print(*sorted(source[0][-1] for _, source in answers))
"""
    assert run(switch, "--ip", "10.9.9.2", code=code) == ["1 2 3"] * 5


@pytest.mark.parametrize("connected", ["", "connected"])
def test_one_port_on_both_sides(switch: Switch, connected: str) -> None:
    """As NTP's peers: each bound to the port that it asks."""
    peer = (
        ASK
        + """
own, other, connected = sys.argv[1:]
c = udp()
c.settimeout(0.2)
c.bind((own, 123))
while connected:
    try:
        c.connect((other, 123))
        break
    except OSError as error:  # the other one hasn't started yet
        assert error.errno in (errno.ENETUNREACH, errno.ECONNREFUSED), error
print("bound", flush=True)
heard = answered = False
while not (heard and answered):
    try:
        c.send(b"ask") if connected else c.sendto(b"ask", (other, 123))
        while True:
            data, source = c.recvfrom(99)
            assert source == (other, 123), source
            if data == b"ask":
                heard = True
                c.sendto(b"tell", source)
            else:
                answered = True
    except (TimeoutError, ConnectionRefusedError):
        pass
    except OSError as error:  # the other one hasn't started yet
        assert error.errno == errno.ENETUNREACH, error
print("fine", flush=True)
for _ in range(5):
    try:
        c.sendto(b"tell", (other, 123))
    except ConnectionRefusedError:
        pass  # it has ended before us
"""
    )
    one = switch.spawn("--ip", "10.9.9.1", PYTHON, "-c", peer, "10.9.9.1", "10.9.9.2", connected)
    other = switch.spawn("--ip", "10.9.9.2", PYTHON, "-c", peer, "10.9.9.2", "10.9.9.1", connected)
    for process in (one, other):
        assert process.wait(PATIENCE) == 0, switch.logs()
        assert process.log.read_text() == "bound\nfine\n"  # type: ignore[attr-defined]


def test_a_server_that_answers_from_another_socket(switch: Switch) -> None:
    """As TFTP: a port of its own for each client, known only by the answer."""
    server = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 69))
while True:
    data, peer = s.recvfrom(999)
    own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for _ in range(3):
        own.sendto(b"%d" % s.getsockname()[1], peer)
        data, again = own.recvfrom(999)
        assert again == peer, (again, peer)
    own.sendto(b"done", peer)
    own.close()
"""
    switch.spawn("--ip", "10.9.9.1", "--name", "server", PYTHON, "-c", server)
    switch.wait_for("server:69")
    code = """
for _ in range(3):
    c = udp()
    c.sendto(b"read", ("10.9.9.1", 69))
    data, source = c.recvfrom(999)
    assert source[0] == "10.9.9.1" and source[1] not in (0, 69), source
    while data != b"done":
        c.sendto(b"ack", source)
        data, same = c.recvfrom(999)
        assert same == source
    print("done")
"""
    assert run(switch, "--ip", "10.9.9.2", code=code) == ["done"] * 3
    assert run(switch, code=code) == ["done"] * 3, "a client that no one can reach gets answers, too"


@pytest.mark.parametrize(
    ("bound", "dialled", "seen"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1", "127.0.0.1"),
        ("::", "127.0.0.1", "::ffff:127.0.0.1"),
        ("::", "::1", "::1"),
        ("::1", "::1", "::1"),
    ],
)
@pytest.mark.parametrize("how", ["connected", "unconnected"])
def test_a_sibling_by_loopback(switch: Switch, bound: str, dialled: str, seen: str, how: str) -> None:
    serve(switch, "--ip", "10.9.9.1", "--name", "server", bound=bound)
    switch.wait_for("server:7000")
    lines = switch.run("--ip", "10.9.9.1", PYTHON, "-c", AGREE, how, dialled, "7000").stdout.splitlines()
    assert lines == [f"{seen} {dialled}"] * 6


def test_own_socket_before_the_siblings(switch: Switch) -> None:
    serve(switch, "--ip", "10.9.9.1", "--name", "server", label="sibling")
    switch.wait_for("server:7000")
    code = """
own = udp()
print(ask(udp(), b"x", ("127.0.0.1", 7000))[0][0])
own.bind(("127.0.0.1", 7000))
for connected in (False, True):
    c = udp()
    if connected:
        c.connect(("127.0.0.1", 7000))
    c.send(b"mine") if connected else c.sendto(b"mine", ("127.0.0.1", 7000))
    print(own.recv(9).decode())
own.close()
print(ask(udp(), b"x", ("127.0.0.1", 7000))[0][0])
"""
    assert run(switch, "--ip", "10.9.9.1", code=code) == ["sibling", "mine", "mine", "sibling"]


def test_services_and_wait_for(switch: Switch) -> None:
    waiting = switch.spawn(
        "--ip", "10.9.9.2", "--wait-for", "dns:7000", PYTHON, "-c", AGREE, "connected", "dns", "7000"
    )
    server = switch.spawn("--ip", "10.9.9.1", "--name", "dns", PYTHON, "-c", SERVER, "0.0.0.0", "7000", "")
    assert waiting.wait(PATIENCE) == 0, switch.logs()
    (row,) = switch.rows("services")
    assert (row["name"], row["ip"], row["port"], row["proto"]) == ("dns", "10.9.9.1", 7000, "udp")
    server.kill()
    server.wait()
    eventually(lambda: switch.rows("services") == [])


def test_tcp_and_udp_on_one_port(switch: Switch) -> None:
    server = """
import socket
t = socket.create_server(("", 7000))
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
u.bind(("", 7000))
while True:
    data, peer = u.recvfrom(99)
    c, other = t.accept()
    u.sendto(b"udp", peer)
    c.sendall(b"tcp")
"""
    switch.spawn("--ip", "10.9.9.1", "--name", "both", PYTHON, "-c", server)
    eventually(lambda: {row["proto"] for row in switch.rows("services")} == {"tcp", "udp"})
    code = """
c = udp()
c.sendto(b"x", ("both", 7000))
t = socket.create_connection(("both", 7000))
print(c.recv(9).decode(), t.recv(9).decode())
"""
    assert run(switch, code=code) == ["udp tcp"]


def test_pktinfo_between_apps(switch: Switch) -> None:
    """A server on the any address learns which of its addresses was asked."""
    server = """
import socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IP, 8, 1)
s.bind(("", 7000))
while True:
    data, ancillary, flags, peer = s.recvmsg(999, 99)
    asked = socket.inet_ntoa([value for level, kind, value in ancillary if (level, kind) == (0, 8)][0][8:12])
    info = struct.pack("=I4s4s", 0, socket.inet_aton(asked), bytes(4))
    s.sendmsg([repr((asked, data, peer, 0)).encode()], [(socket.IPPROTO_IP, 8, info)], 0, peer)
"""
    switch.spawn("--ip", "10.9.9.1", "--name", "server", PYTHON, "-c", server)
    switch.wait_for("server:7000")
    code = """
(asked, data, seen, _), source = ask(udp(), b"x", (sys.argv[1], 7000))
print(asked, seen[0], source[0])
"""
    assert run(switch, "--ip", "10.9.9.2", code=code, arguments=("10.9.9.1",)) == ["10.9.9.1 10.9.9.2 10.9.9.1"]
    assert run(switch, "--ip", "10.9.9.1", code=code, arguments=("127.0.0.1",)) == ["127.0.0.1 127.0.0.1 127.0.0.1"]
    assert run(switch, "--ip", "10.9.9.1", code=code, arguments=("10.9.9.1",)) == ["10.9.9.1 10.9.9.1 10.9.9.1"]


@pytest.mark.parametrize("how", ["connected", "unconnected"])
def test_what_goes_beside_the_data(switch: Switch, how: str) -> None:
    """Segments (QUIC's servers send many in one call), TOS (its ECN) and TTL, by cmsg and by option."""
    server = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(0, socket.IP_RECVTOS, 1)
s.setsockopt(0, 12, 1)
s.bind(("", 7000))
while True:
    data, ancillary, _, peer = s.recvmsg(9999, 99)
    seen = {kind: value[0] for _, kind, value in ancillary}
    s.sendto(repr(((seen[1], seen[2]), data, peer, 0)).encode(), peer)
"""
    switch.spawn("--ip", "10.9.9.1", "--name", "server", PYTHON, "-c", server)
    switch.wait_for("server:7000")
    code = """
import struct
c = udp()
to = ("10.9.9.1", 7000)
if sys.argv[1] == "connected":
    c.connect(to)
address = () if sys.argv[1] == "connected" else (to,)
def send(data, *beside):
    c.sendmsg([data], beside, 0, *address)
def heard():
    seen, data, _, _ = eval(c.recv(9999))
    return seen, data.decode()
send(b"tos", (0, 1, struct.pack("i", 2)))
assert heard()[0][0] == 2
send(b"ttl", (0, 2, struct.pack("i", 5)))
assert heard()[0][1] == 5
send(b"alphabetagamm", (17, 103, struct.pack("H", 5)))
assert [heard()[1] for _ in range(3)] == ["alpha", "betag", "amm"]
send(b"alphabeta", (17, 103, struct.pack("H", 5)), (0, 1, struct.pack("i", 1)))
assert [(heard())[1] for _ in range(2)] == ["alpha", "beta"]
own = struct.pack("=I4s4s", 0, socket.inet_aton("10.9.9.2"), bytes(4))
send(b"gammadelta", (0, 8, own), (17, 103, struct.pack("H", 5)))
assert [(heard())[1] for _ in range(2)] == ["gamma", "delta"]
c.setsockopt(0, socket.IP_TOS, 0x10)
c.setsockopt(0, socket.IP_TTL, 7)
send(b"both")
assert heard()[0] == (0x10, 7)
c.setsockopt(17, 103, 3)
send(b"onetwo")
assert [heard()[1] for _ in range(2)] == ["one", "two"]
print("fine")
"""
    assert run(switch, "--ip", "10.9.9.2", code=code, arguments=(how,)) == ["fine"]
