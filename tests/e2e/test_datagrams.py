"""UDP between apps: programs that know nothing of AppSwitch, in Python for what they say and real ones."""

from __future__ import annotations

import sys

import pytest

from tests.harness import Switch

PYTHON = sys.executable
SERVER = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
s = socket.socket(family, socket.SOCK_DGRAM)
s.bind((sys.argv[1], int(sys.argv[2])))
while True:
    data, client = s.recvfrom(65536)
    s.sendto(f"{sys.argv[3]} got {len(data)} from {client[0]} {client[1]}".encode(), client)
"""
CONNECTED = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
s = socket.socket(family, socket.SOCK_DGRAM)
s.settimeout(20)
s.connect((sys.argv[1], int(sys.argv[2])))
own, peer = s.getsockname(), s.getpeername()
for size in (0, 1, 65507):
    s.send(b"x" * size)
    said = s.recv(999).decode().split(" ", 1)[1].replace("::ffff:", "")
    assert said == f"got {size} from {own[0]} {own[1]}".replace("::ffff:", "")
print(own[0], peer[0], peer[1])
"""
UNCONNECTED = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[2] else socket.AF_INET
s = socket.socket(family, socket.SOCK_DGRAM)
s.settimeout(20)
s.bind(("", int(sys.argv[1])))
servers = [(ip, int(port)) for ip, port in zip(sys.argv[2::2], sys.argv[3::2])]
for _ in range(3):
    for server in servers:
        s.sendto(b"hello", server)
    answers = [s.recvfrom(999) for _ in servers]
    assert sorted(sender[:2] for _, sender in answers) == sorted(servers), answers
    own = {data.decode().split(" from ")[1] for data, _ in answers}
    assert {each.split()[1] for each in own} == {str(s.getsockname()[1])}
print(*{each.split()[0] for each in own})
"""


def serve(
    switch: Switch, ip: str, *flags: str, port: int = 5353, any_address: str = "0.0.0.0", word: str = "s"
) -> None:
    switch.spawn("--ip", ip, *flags, PYTHON, "-c", SERVER, any_address, str(port), word)
    switch.wait_for(f"{ip}:{port}")


def said(switch: Switch, *arguments: str) -> str:
    return switch.run(*arguments).stdout.strip()


def test_a_connected_client(switch: Switch) -> None:
    serve(switch, "10.0.0.1")
    assert said(switch, "--ip", "10.0.0.9", PYTHON, "-c", CONNECTED, "10.0.0.1", "5353") == "10.0.0.9 10.0.0.1 5353"


def test_a_client_of_a_server_of_both_versions(switch: Switch) -> None:
    switch.spawn("--ip", "10.0.0.1", PYTHON, "-c", SERVER, "::", "5353", "s")
    switch.wait_for("10.0.0.1:5353")
    for ip, own in (("10.0.0.1", "10.0.0.9"), ("::ffff:10.0.0.1", "::ffff:10.0.0.9")):
        assert said(switch, "--ip", "10.0.0.9", PYTHON, "-c", CONNECTED, ip, "5353") == f"{own} {ip} 5353"


def test_ipv6(switch: Switch) -> None:
    serve(switch, "fd00::1", any_address="::")
    assert said(switch, "--ip", "fd00::9", PYTHON, "-c", CONNECTED, "fd00::1", "5353") == "fd00::9 fd00::1 5353"
    assert said(switch, "--ip", "fd00::9", PYTHON, "-c", UNCONNECTED, "0", "fd00::1", "5353") == "fd00::9"
    alias = "fd61:7073:7769::a00:9"
    assert said(switch, "--ip", "10.0.0.9", PYTHON, "-c", CONNECTED, "fd00::1", "5353") == f"{alias} fd00::1 5353"


@pytest.mark.parametrize("port", [0, 5353])
def test_one_socket_that_asks_several_servers(switch: Switch, port: int) -> None:
    """5353: the same port at both ends, as mDNS has it."""
    servers: list[str] = []
    for number in (1, 2, 3):
        serve(switch, f"10.0.0.{number}")
        servers += [f"10.0.0.{number}", "5353"]
    assert said(switch, "--ip", "10.0.0.9", PYTHON, "-c", UNCONNECTED, str(port), *servers) == "10.0.0.9"
    assert said(switch, PYTHON, "-c", UNCONNECTED, str(port), *servers).startswith("169.254."), "no one can reach it"


def test_a_siblings_port_on_loopback(switch: Switch) -> None:
    serve(switch, "10.0.0.1", any_address="127.0.0.1")
    for client in (["-c", CONNECTED, "127.0.0.1"], ["-c", UNCONNECTED, "0", "127.0.0.1"]):
        assert said(switch, "--ip", "10.0.0.1", PYTHON, *client, "5353").split()[0] == "127.0.0.1"
    refused = switch.run("--ip", "10.0.0.9", PYTHON, "-c", CONNECTED, "10.0.0.1", "5353", check=False)
    assert "ConnectionRefusedError" in refused.stderr
    (row,) = switch.rows("services")
    assert (row["proto"], row["port"], row["scope"]) == ("udp", 5353, "app")


def test_policy(switch: Switch) -> None:
    serve(switch, "10.0.0.1", "--tag", "grp=a")
    for client in (["-c", CONNECTED], ["-c", UNCONNECTED, "0"]):
        command = ["--ip", "10.0.0.9", PYTHON, *client, "10.0.0.1", "5353"]
        assert "ConnectionRefusedError" in switch.run("--tag", "grp=b", *command, check=False).stderr
        switch.run("--tag", "grp=a", *command)


def test_instances_take_turns(switch: Switch) -> None:
    for word in "ab":
        serve(switch, "10.0.0.1", word=word)
    while len(switch.rows("services")) < 2:
        pass
    code = """
import socket, sys
words = []
for _ in range(8):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(20)
    s.connect(("10.0.0.1", 5353))
    s.send(b"")
    words.append(s.recv(99).decode()[0])
print(*sorted(words))
"""
    assert said(switch, PYTHON, "-c", code) == "a a a a b b b b"


@pytest.mark.program("iperf")
@pytest.mark.parametrize("flags", [[], ["-P", "3"], ["-d"]], ids=["one", "three", "both ways"])
def test_iperf(switch: Switch, flags: list[str]) -> None:
    """Its server connects the socket that it has bound to the client, and opens another one."""
    switch.spawn("--ip", "10.0.0.1", "iperf", "-s", "-u")
    switch.wait_for("10.0.0.1:5001")
    output = said(switch, "--ip", "10.0.0.9", "iperf", "-c", "10.0.0.1", "-u", "-t", "0.5", "-b", "10M", *flags)
    assert output.count("Server Report") == (3 if "-P" in flags else 1), output
    assert "WARNING" not in output
