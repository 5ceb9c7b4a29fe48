"""UDP between apps: programs that know nothing of AppSwitch, in Python for what they say and real ones."""

from __future__ import annotations

import socket
import sys

import pytest

from tests.harness import PATIENCE, Switch

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


NAME_SERVER = """
import socket, subprocess
for family, everywhere in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
    own = socket.socket(family, socket.SOCK_DGRAM)
    own.settimeout(0.2)
    own.bind((everywhere, 53))
    assert not own.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
    print(socket.getaddrinfo("ns", 80)[0][4][0])
    print(subprocess.check_output(["dig", "+short", "@192.0.2.53", "ns.appswitch.local"], text=True).strip())
    try:
        raise AssertionError(own.recvfrom(99))
    except TimeoutError:
        pass
    second = socket.socket(family, socket.SOCK_DGRAM)
    second.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        raise AssertionError(second.bind((everywhere, 53)))
    except OSError:
        own.close()
"""


@pytest.mark.program("dig")
def test_an_app_that_is_a_name_server_asks_others(switch: Switch) -> None:
    """What it asks name servers doesn't come back to itself, by libc or by a program's own resolver."""
    assert said(switch, "--ip", "10.0.0.1", "--name", "ns", PYTHON, "-c", NAME_SERVER).split() == ["10.0.0.1"] * 4


@pytest.mark.program("dig", "dnsmasq")
@pytest.mark.parametrize("flags", [[], ["--no-netns"]], ids=["namespace", "no namespace"])
def test_dnsmasq_forwards(switch: Switch, flags: list[str]) -> None:
    command = ["dnsmasq", "-k", "--no-daemon", "--no-hosts", "--pid-file=", "--conf-file=/dev/null", "--user=root"]
    switch.spawn(*flags, "--ip", "10.0.0.1", "--name", "ns", *command, "--address=/inside.test/10.1.2.3")
    switch.wait_for("ns:53")
    for name, address in (("inside.test", "10.1.2.3"), ("ns.appswitch.local", "10.0.0.1")):
        assert said(switch, "dig", "+short", "@10.0.0.1", name) == address


@pytest.mark.parametrize("how", ["connected", "unconnected"])
def test_the_outside(gateway: Switch, how: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this host has no address but loopback")
        outside = probe.getsockname()[0]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as service:
        service.settimeout(PATIENCE)
        service.bind((outside, 0))
        code = f"""
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(20)
to = {service.getsockname()!r}
if {how!r} == "connected":
    s.connect(to)
    s.send(b"x")
else:
    s.sendto(b"x", to)
print(s.recvfrom(9)[0].decode())
"""
        client = gateway.spawn("--ip", "10.0.0.9", PYTHON, "-c", code)
        _, address = service.recvfrom(9)
        service.sendto(b"answer", address)
        assert client.wait(PATIENCE) == 0, gateway.logs()
        assert client.log.read_text() == "answer\n"  # type: ignore[attr-defined]


BINDS = """
import errno, socket
def bound(ip, port, *options):
    s = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_DGRAM)
    for level, name in options:
        s.setsockopt(level, name, 1)
    try:
        s.bind((ip, port))
    except OSError as error:
        return errno.errorcode[error.errno]
    return s
def text(made):
    return made if isinstance(made, str) else "bound"
addr, port = (socket.SOL_SOCKET, socket.SO_REUSEADDR), (socket.SOL_SOCKET, socket.SO_REUSEPORT)
v6only = (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
one = bound("0.0.0.0", 7000)
print(text(bound("0.0.0.0", 7000)), text(bound("127.0.0.1", 7000, addr)), text(bound("::", 7000)))
six = bound("::", 7000, v6only)
print(text(six), text(bound("10.9.9.9", 7000)))
group = [bound("0.0.0.0", 7001, port) for _ in range(2)]
shared = [bound("0.0.0.0", 7002, addr) for _ in range(2)]
print(*map(text, group + shared), text(bound("0.0.0.0", 7001, addr)))
print(one.getsockopt(*addr), shared[0].getsockopt(*addr), six.getsockopt(*v6only))
"""


@pytest.mark.parametrize("flags", [[], ["--no-netns"]], ids=["namespace", "no namespace"])
def test_ports_that_are_taken(switch: Switch, flags: list[str]) -> None:
    assert said(switch, *flags, "--ip", "10.0.0.1", PYTHON, "-c", BINDS).splitlines() == [
        "EADDRINUSE EADDRINUSE EADDRINUSE",
        "bound EADDRNOTAVAIL",
        "bound bound bound bound EADDRINUSE",
        "0 1 1",
    ]


MANY = """
import os, resource, socket, sys
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
for _ in range(2 * limit):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(20)
    s.sendto(b"x", ("10.0.0.1", 5353))
    s.recv(99)
    s.close()
own = [int(fd) for fd in os.listdir("/proc/self/fd")]
assert len(own) < limit / 2 and len([fd for fd in own if fd < limit / 2]) < 6, own
both = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
both.settimeout(20)
child = os.fork()
both.sendto(b"x", ("10.0.0.1", 5353))  # either binds it
both.recv(99)
if child:
    assert os.wait()[1] == 0
    print("fine")
"""


def test_senders_leave_room_for_the_programs_own_descriptors(switch: Switch) -> None:
    serve(switch, "10.0.0.1")
    assert said(switch, PYTHON, "-c", MANY, "64") == "fine"
