"""Which UDP socket would get a datagram, as messages; against the kernel."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv6Address

import pytest

from appswitch.model import Address
from appswitch.wire import inet_diag, netlink
from appswitch.wire.inet_diag import Placed, UdpSocket

V4, V6 = IPv4Address("127.0.0.1"), IPv6Address("::1")


@pytest.fixture
def kernel() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as opened:
        yield opened


def ask(kernel: socket.socket, source: tuple[Address, int], dest: tuple[Address, int]) -> UdpSocket | None:
    kernel.send(inet_diag.receiver_request(7, source, dest))
    (message,) = netlink.messages(kernel.recv(4096))
    assert message.sequence == 7
    return inet_diag.decode(message.body) if message.kind == inet_diag.SOCK_DIAG_BY_FAMILY else None


def cookie(of: socket.socket) -> int:
    return int.from_bytes(of.getsockopt(socket.SOL_SOCKET, 57, 8), "little")


@pytest.mark.parametrize(("family", "ip"), [(socket.AF_INET, V4), (socket.AF_INET6, V6)])
def test_the_most_specific_socket_receives(kernel: socket.socket, family: int, ip: Address) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as bound, socket.socket(family, socket.SOCK_DGRAM) as connected:
        for each in (bound, connected):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((str(ip), 0))
        port = bound.getsockname()[1]
        connected.bind((str(ip), port))
        connected.connect((str(ip), 7))
        connected.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
        anybody = ask(kernel, (ip, 9), (ip, port))
        assert anybody == UdpSocket((ip, port), (type(ip)(0), 0), cookie(bound), no_port=False, mark=0)
        assert ask(kernel, (ip, 7), (ip, port)) == UdpSocket(
            (ip, port), (ip, 7), cookie(connected), no_port=True, mark=0
        )
    assert ask(kernel, (ip, 9), (ip, port)) is None


def test_a_socket_of_both_versions_receives_both(kernel: socket.socket) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as both:
        both.bind(("::", 0))
        port = both.getsockname()[1]
        for ip in (V4, V6):
            found = ask(kernel, (ip, 9), (ip, port))
            assert found is not None
            assert found.cookie == cookie(both)
            assert found.local == (IPv6Address("::"), port)


@pytest.mark.root
@pytest.mark.parametrize(("family", "ip"), [(socket.AF_INET, V4), (socket.AF_INET6, V6)])
def test_those_that_are_connected_and_marked(kernel: socket.socket, family: int, ip: Address) -> None:
    with ExitStack() as stack:
        marked, plain, sender, bound = (stack.enter_context(socket.socket(family, socket.SOCK_DGRAM)) for _ in range(4))
        for each, mark in ((marked, 5), (sender, 6 | inet_diag.DEAF), (bound, 7)):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        for each in (marked, plain, sender):
            each.connect((str(ip), 7))
        bound.bind((str(ip), 0))
        kernel.send(inet_diag.connected_request(7, family))
        found = []
        more = True
        while more:
            for message in netlink.messages(kernel.recv(65536)):
                more = message.kind != netlink.DONE
                if more:
                    found.append(inet_diag.decode_placed(message.body))
        ours = UdpSocket((ip, marked.getsockname()[1]), (ip, 7), cookie(marked), no_port=False, mark=5)
        inodes = {os.fstat(each.fileno()).st_ino for each in (marked, plain, sender, bound)}
        mine = [each for each in found if each and each.inode in inodes]
        assert mine == [Placed(ours, os.fstat(marked.fileno()).st_ino)]


@pytest.mark.parametrize("size", [0, 1, 71])
def test_an_answer_that_is_cut(size: int) -> None:
    with pytest.raises(ValueError, match=f"{size} bytes"):
        inet_diag.decode(bytes(size))
