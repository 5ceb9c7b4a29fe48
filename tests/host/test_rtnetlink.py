"""An app's network namespace: every address is its own, and nothing leads anywhere."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import pytest

from tests.harness import python_for

PREPARE = """
import errno, json, socket, sys
from appswitch.host import namespace, rtnetlink
namespace.enter_new_namespace()
"""


def inside(code: str) -> object:
    """What `code` prints, run in a new namespace."""
    done = subprocess.run([sys.executable, "-c", PREPARE + code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


pytestmark = pytest.mark.root


def test_every_address_is_local() -> None:
    code = """
rtnetlink.make_everything_local([])
done = []
for family, ip in ((socket.AF_INET, "8.8.8.8"), (socket.AF_INET, "127.0.0.53"), (socket.AF_INET6, "2001:db8::1")):
    with socket.socket(family, socket.SOCK_DGRAM) as server, socket.socket(family, socket.SOCK_DGRAM) as client:
        server.bind(("" if family == socket.AF_INET else "::", 53))
        client.connect((ip, 53))
        client.send(b"x")
        done.append(server.recv(9).decode())
print(json.dumps(done))
"""
    assert inside(code) == ["x", "x", "x"]


def test_what_has_no_source_yet_comes_from_los_own_address() -> None:
    code = """
rtnetlink.make_everything_local([])
rtnetlink.make_everything_local(["10.1.1.1", "fd61:7073:7769::a01:101"])
done = []
for ip in ("10.9.9.9", "127.0.0.1", "10.1.1.1", "fd00::1", "::1"):
    with socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect((ip, 53))
        done.append(client.getsockname()[0])
print(json.dumps(done))
"""
    assert inside(code) == ["10.1.1.1", "127.0.0.1", "10.1.1.1", "fd61:7073:7769::a01:101", "::1"]


def test_los_addresses_are_shown() -> None:
    """Getifaddrs shows the virtual IP and its alias, ready for use at once."""
    code = """
from pyroute2 import IPRoute
rtnetlink.make_everything_local([])
rtnetlink.make_everything_local(["10.1.1.1", "fd61:7073:7769::a01:101"])
with IPRoute() as netlink:
    addresses = [(each.get("IFA_ADDRESS"), each["prefixlen"], each["flags"] & 0x40) for each in netlink.get_addr()]
    up = [link.get("IFLA_IFNAME") for link in netlink.get_links() if link["flags"] & 1]
print(json.dumps([sorted(addresses), up]))
"""
    addresses = [["10.1.1.1", 32, 0], ["127.0.0.1", 8, 0], ["::1", 128, 0], ["fd61:7073:7769::a01:101", 128, 0]]
    assert inside(code) == [addresses, ["lo"]]


def test_doing_it_twice_is_fine() -> None:
    code = """
for _ in range(3):
    rtnetlink.make_everything_local(["10.1.1.1", "fd00::1"])
print(1)
"""
    assert inside(code) == 1


def test_the_kernels_refusal_is_an_oserror() -> None:
    code = """
try:
    rtnetlink.make_everything_local(["224.0.0.1"])
except OSError as error:
    print(json.dumps(error.errno == errno.EINVAL and "rtnetlink" in str(error)))
else:
    print(2)
"""
    assert inside(code) in (True, 2)


def test_dns_sockets_answer_on_every_address_of_both_versions() -> None:
    code = """
rtnetlink.make_everything_local([])
datagrams, listening = namespace.open_dns_sockets()
done = []
for family, ip in ((socket.AF_INET, "8.8.8.8"), (socket.AF_INET6, "2001:db8::1")):
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.connect((ip, 53))
        client.send(b"question")
        data, control, _, address = datagrams.recvmsg(512, 256)
        datagrams.sendmsg([data[::-1]], control, 0, address)
        done.append(client.recv(512).decode())  # a connected socket takes it from the address that was asked only
    with socket.create_connection((ip, 53)) as client:
        accepted, _ = listening.accept()
        done.append(client.getpeername()[0])
        accepted.close()
print(json.dumps(done))
"""
    assert inside(code) == ["noitseuq", "8.8.8.8", "noitseuq", "2001:db8::1"]


def test_nothing_leads_out_of_it() -> None:
    """A socket of the host's that listens on loopback isn't there."""
    code = """
rtnetlink.make_everything_local([])
with socket.socket() as client:
    print(client.connect_ex(("127.0.0.1", int(sys.argv[1]))) == errno.ECONNREFUSED)
"""
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = [sys.executable, "-c", PREPARE + code, str(server.getsockname()[1])]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "True\n"


def test_an_ordinary_users_files_keep_their_owner() -> None:
    """A user namespace of one user, who is who they were."""
    code = """
import os, tempfile
with tempfile.TemporaryFile() as file:
    print(json.dumps([os.getuid(), os.getgid(), os.fstat(file.fileno()).st_uid, os.stat("/").st_uid == os.getuid()]))
"""
    python, environment = python_for(65534)
    done = subprocess.run(
        [python, "-c", PREPARE + code],
        capture_output=True, text=True, check=False, user=65534, group=65534, extra_groups=[], env=environment, cwd="/",
    )  # fmt: skip
    assert done.stdout, done.stderr
    assert json.loads(done.stdout)[:3] == [65534, 65534, 65534]


MARKED = """
from ipaddress import ip_address
rtnetlink.make_everything_local([])
rtnetlink.make_everything_local(["10.1.1.1", "fd00::1"])
rtnetlink.strand_marked()
family, server_ip, client_ip, other_ip, loopback = FAMILY
def udp(ip, port, mark=0):
    made = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, namespace.IPV6_FREEBIND, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
    made.bind((ip, port))
    made.settimeout(0)
    return made
server, secret = udp("", 7000), udp(loopback, 7001)
netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
placed = udp(client_ip, 6000, mark=1)
way = (1, (ip_address(client_ip), 6000), (ip_address(server_ip), 7000))
rtnetlink.admit(netlink, *way)
def source(ip, device):
    if family == socket.AF_INET:
        return [(0, 8, device.to_bytes(4, "little") + socket.inet_aton(ip) + bytes(4))]
    return [(41, 50, socket.inet_pton(family, ip) + device.to_bytes(4, "little"))]
def heard(data, beside, to):
    try:
        placed.sendmsg([data], beside, 0, to)
    except OSError:
        pass
    found = []
    for each in (server, secret):
        try:
            found.append(each.recvfrom(99)[1][0])
        except BlockingIOError:
            pass
    return found
"""
FAMILIES = [
    '(socket.AF_INET, "10.1.1.1", "10.1.1.2", "10.1.1.3", "127.0.0.1")',
    '(socket.AF_INET6, "fd00::1", "fd00::2", "fd00::3", "::1")',
]


@pytest.mark.parametrize("family", FAMILIES, ids=["IPv4", "IPv6"])
def test_a_marked_socket_sends_where_it_is_admitted_and_nowhere_else(family: str) -> None:
    code = (
        MARKED.replace("FAMILY", family)
        + """
done = []
for bound in (False, True):
    if bound:
        placed.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
    for device in (0, 1):
        done += [
            heard(b"honest", [], (server_ip, 7000)),
            heard(b"honest", source(client_ip, device), (server_ip, 7000)),
            heard(b"forged", source(other_ip, device), (server_ip, 7000)),
            heard(b"forged", source(server_ip, device), (server_ip, 7000)),
            heard(b"forged", source(client_ip, device), (loopback, 7001)),
            heard(b"forged", source(loopback, device), (loopback, 7001)),
            heard(b"forged", [], (loopback, 7000)),
        ]
placed.connect((server_ip, 7000))
done.append(heard(b"honest", [], (server_ip, 7000)))
server.sendto(b"answer", (client_ip, 6000))
done.append([placed.recv(99).decode()])
print(json.dumps(done))
"""
    )
    client = "10.1.1.2" if "AF_INET," in family else "fd00::2"
    assert inside(code) == [[client], [client], [], [], [], [], []] * 4 + [[client], ["answer"]]


@pytest.mark.parametrize("family", FAMILIES, ids=["IPv4", "IPv6"])
def test_what_is_dismissed_is_admitted_no_more(family: str) -> None:
    code = (
        MARKED.replace("FAMILY", family)
        + """
done = [heard(b"honest", [], (server_ip, 7000))]
rtnetlink.dismiss(netlink, *way)
done.append(heard(b"late", [], (server_ip, 7000)))
try:
    rtnetlink.dismiss(netlink, *way)
except OSError as error:
    done.append(errno.errorcode[error.errno])
print(json.dumps(done))
"""
    )
    client = "10.1.1.2" if "AF_INET," in family else "fd00::2"
    assert inside(code) == [[client], [], "ENOENT"]


@pytest.mark.parametrize("family", FAMILIES, ids=["IPv4", "IPv6"])
def test_to_a_port_where_nobody_is_the_error_comes_back(family: str) -> None:
    code = (
        MARKED.replace("FAMILY", family)
        + """
rtnetlink.admit(netlink, 1, way[1], (ip_address(server_ip), 9))
placed.connect((server_ip, 9))
placed.send(b"x")
try:
    placed.send(b"x")
except OSError as error:
    print(json.dumps(errno.errorcode[error.errno]))
"""
    )
    assert inside(code) == "ECONNREFUSED"
