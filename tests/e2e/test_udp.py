"""Datagrams between apps: who sees whom, under which address."""

from __future__ import annotations

import pytest

from tests.e2e.datagrams import AGREE, PYTHON, SERVER, run, serve
from tests.harness import PATIENCE, Switch, eventually


@pytest.mark.parametrize("how", ["connected", "unconnected"])
@pytest.mark.parametrize("bound", ["0.0.0.0", "10.9.9.1", "::", "::ffff:10.9.9.1"])
@pytest.mark.parametrize("client", ["--ip 10.9.9.2", ""])
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
