"""Netlink messages: as the kernel has them, and whatever else comes."""

from __future__ import annotations

import errno
import os
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appswitch.wire import netlink

RTM_GETLINK = 18
IFLA_IFNAME = 3


def test_a_dump_of_the_kernel() -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        sock.send(netlink.dump_request(RTM_GETLINK, 7, bytes(16)))
        got: list[netlink.Message] = []
        while not got or got[-1].kind != netlink.DONE:
            got += netlink.messages(sock.recv(65536))
    assert {each.sequence for each in got} == {7}
    assert netlink.error_of(got[-1]) == 0
    names = [netlink.attributes(each.body, 16)[IFLA_IFNAME].rstrip(b"\0").decode() for each in got[:-1]]
    assert names == [name for _, name in socket.if_nameindex()]


def test_an_error_of_the_kernel() -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        sock.send(netlink.dump_request(9999, 1, b""))
        (answer,) = netlink.messages(sock.recv(65536))
    assert answer.kind == netlink.ERROR
    assert netlink.error_of(answer) == errno.EOPNOTSUPP, os.strerror(netlink.error_of(answer))


def test_sizes_that_lie() -> None:
    with pytest.raises(ValueError, match="message of 99 bytes"):
        list(netlink.messages(struct.pack("=IHHII", 99, 3, 0, 0, 0)))
    with pytest.raises(ValueError, match="message of 0 bytes"):
        list(netlink.messages(bytes(16)))
    with pytest.raises(ValueError, match="attribute of 2 bytes"):
        netlink.attributes(struct.pack("=HH", 2, 0), 0)


@given(st.binary())
def test_any_bytes_are_read_to_an_end(data: bytes) -> None:
    for read in (lambda: list(netlink.messages(data)), lambda: netlink.attributes(data, 0)):
        try:
            read()
        except ValueError:
            continue
