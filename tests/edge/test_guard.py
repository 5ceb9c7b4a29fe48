"""What placed sockets may do; a namespace for each test is made by a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.root

PREPARE = """
import socket
from ipaddress import ip_address
from appswitch.edge.guard import Guard
from appswitch.edge.receivers import Receivers
from appswitch.host import namespace, rtnetlink
namespace.enter_new_namespace()
rtnetlink.make_everything_local(["10.1.1.1", "fd00::1"])
rtnetlink.strand_marked()
receivers = Receivers(namespace.open_diag_socket())
guard = Guard(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE), receivers)
client, server = ip_address("10.1.1.2"), (ip_address("10.1.1.1"), 7000)

def place(port, deaf=False):
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((str(client), port))
    guard.admit(made, (client, port), server, deaf)
    made.connect((str(server[0]), server[1]))
    return made

def rules():
    import subprocess
    return subprocess.run(["ip", "rule"], capture_output=True, text=True, check=True).stdout.count("fwmark 0x")
"""


def inside(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", PREPARE + code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.program("ip")
def test_rules_go_with_their_sockets() -> None:
    inside("""
kept = [place(6000), place(6001, deaf=True)]
for _ in range(50):
    place(6002).close()
    assert rules() <= 5
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
    listening.bind(("", 7000))
    for each in kept:
        each.send(b"still there")
        assert listening.recv(99) == b"still there"
""")


@pytest.mark.program("ip")
def test_sockets_of_one_way_are_all_admitted_until_the_last_is_closed() -> None:
    inside("""
same = [place(6000, deaf=True), place(6000, deaf=True), place(6000)]
assert rules() == 1
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
    listening.bind(("", 7000))
    listening.settimeout(1)
    while same:
        for _ in range(5):
            place(6001).close()
        for each in same:
            each.send(b"still there")
            assert listening.recv(99) == b"still there"
        same.pop().close()
for _ in range(5):
    place(6001).close()
assert rules() <= 1
""")


def test_a_sender_is_no_receiver() -> None:
    inside("""
hearing, deaf = place(6000), place(6001, deaf=True)
assert receivers.find(server, (client, 6000)) is not None
assert receivers.find(server, (client, 6001)) is None
assert receivers.find_any(server, (client, 6001)) is not None
""")


def test_a_mark_can_not_be_changed_by_who_is_not_root() -> None:
    inside("""
import os
held = place(6000)
os.setuid(12345)
for mark in (0, 2):
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
    except PermissionError:
        continue
    raise AssertionError("changed")
""")
