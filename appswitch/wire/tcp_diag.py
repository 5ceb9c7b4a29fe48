"""What the kernel says of the TCP sockets of a network namespace (sock_diag(7); net/ipv4/inet_diag.c)."""

from __future__ import annotations

import struct
from collections.abc import Container
from typing import NamedTuple

from appswitch.model import Address
from appswitch.wire import netlink
from appswitch.wire.addresses import V4_MAPPED, unpack_ip

SOCK_DIAG_BY_FAMILY = 20  # the type of the request and of the answers
AF_INET6 = 10
TCP = 6
ESTABLISHED, SYN_SENT = 1, 2  # linux/net/tcp_states.h
TIME_WAIT, CLOSE, LISTEN, NEW_SYN_RECV, BOUND_INACTIVE = 6, 7, 10, 12, 13
NO_CONNECTION = 1 << TIME_WAIT | 1 << CLOSE | 1 << LISTEN | 1 << NEW_SYN_RECV | 1 << BOUND_INACTIVE

_REQUEST = struct.Struct("=BBBxI48x")  # struct inet_diag_req_v2; no particular socket
_ANSWER = struct.Struct("=BBBB40xIIIIIII")  # struct inet_diag_msg


class TcpSocket(NamedTuple):
    """cookie: SO_COOKIE; inode: 0: closed, its connection goes on without it; state: as above."""

    cookie: int
    inode: int
    state: int


def connected_sockets(sequence: int, family: int) -> bytes:
    """The request for all of an address family (socket.AF_INET or AF_INET6) that have a connection."""
    body = _REQUEST.pack(family, TCP, 0, 0xFFFF & ~NO_CONNECTION)
    return netlink.dump_request(SOCK_DIAG_BY_FAMILY, sequence, body)


def decode(body: bytes) -> TcpSocket:
    """One answer. ValueError when it is cut."""
    if len(body) < _ANSWER.size:
        raise ValueError(f"an answer of {len(body)} bytes")
    _, state, _, _, low, high, _, _, _, _, inode = _ANSWER.unpack_from(body)
    return TcpSocket(low | high << 32, inode, state)


def decode_client(body: bytes, ports: Container[int]) -> Address | None:
    """One answer: the other end's address, of a socket that is open and has one of our `ports`. ValueError as above."""
    if not decode(body).inode or int.from_bytes(body[4:6], "big") not in ports:
        return None
    return unpack_ip(body[24:40] if body[0] == AF_INET6 else V4_MAPPED + body[24:28])
