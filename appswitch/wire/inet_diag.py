"""Which UDP sockets a network namespace has, and which would get a datagram (sock_diag(7); net/ipv4/udp_diag.c).

The kernel looks the latter up as it does when one arrives. It tells a socket's mark (SO_MARK) to those who could set it
only. We give marks to the sockets that we place in there (edge/guard.py).
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from appswitch.model import Address
from appswitch.wire import netlink
from appswitch.wire.addresses import V4_MAPPED, unpack_ip

SOCK_DIAG_BY_FAMILY = 20  # the type of the request and of the answer
AF_INET, AF_INET6, UDP = 2, 10, 17
ESTABLISHED = 1  # TCP_ESTABLISHED of include/net/tcp_states.h; connected UDP sockets use it, too
NO_COOKIE = 0xFFFFFFFF
SOCKOPT = 22  # INET_DIAG_SOCKOPT: the attribute of struct inet_diag_sockopt, two bytes of flags
DEAF = 1 << 30  # in the mark of a sender
MARK = 15  # INET_DIAG_MARK: four bytes
ADDRESS_NO_PORT = 0x01  # IP_BIND_ADDRESS_NO_PORT, in the second of them

_REQUEST = struct.Struct("=BBBxI")  # struct inet_diag_req_v2, as far as its id
_ANSWER = struct.Struct("=BBBB")  # struct inet_diag_msg, as far as its id; its attributes come after 72 bytes
_PORTS = struct.Struct("!HH")
_REST = struct.Struct("=III")  # interface, cookie
_ID_SIZE, _ANSWER_SIZE = 48, 72


class UdpSocket(NamedTuple):
    """local, remote: what it is bound and connected to; the any-address and port 0: nothing. cookie: SO_COOKIE;
    no_port: IP_BIND_ADDRESS_NO_PORT is set; mark: SO_MARK.
    """

    local: tuple[Address, int]
    remote: tuple[Address, int]
    cookie: int
    no_port: bool
    mark: int


class Placed(NamedTuple):
    """A connected socket that was made by us. inode: whoever holds it has the same."""

    socket: UdpSocket
    inode: int


def connected_request(sequence: int, family: int) -> bytes:
    """Asks for all that are connected, of an address family (AF_INET or AF_INET6)."""
    body = _REQUEST.pack(family, UDP, 0, 1 << ESTABLISHED) + bytes(_ID_SIZE)
    return netlink.dump_request(SOCK_DIAG_BY_FAMILY, sequence, body)


def decode_placed(body: bytes) -> Placed | None:
    """One answer to that; None for a sender, and for what a program made. ValueError when it is none."""
    found = decode(body)
    inode = int.from_bytes(body[_ANSWER_SIZE - 4 : _ANSWER_SIZE], "little")
    return Placed(found, inode) if found.mark and not found.mark & DEAF else None


def receiver_request(sequence: int, source: tuple[Address, int], dest: tuple[Address, int]) -> bytes:
    """Asks for the socket that would get a datagram from `source` to `dest`, of one IP version."""
    family = AF_INET if dest[0].version == 4 else AF_INET6
    body = _REQUEST.pack(family, UDP, 0, 0xFFFFFFFF) + _PORTS.pack(source[1], dest[1])
    body += source[0].packed.ljust(16, b"\0") + dest[0].packed.ljust(16, b"\0") + _REST.pack(0, NO_COOKIE, NO_COOKIE)
    return netlink.request(SOCK_DIAG_BY_FAMILY, sequence, body)


def decode(body: bytes) -> UdpSocket:
    """The answer. ValueError when it is none."""
    if len(body) < _ANSWER_SIZE:
        raise ValueError(f"an answer of {len(body)} bytes")
    family = body[0]
    at = _ANSWER.size
    ports = _PORTS.unpack_from(body, at)
    local, remote = body[at + 4 : at + 20], body[at + 20 : at + 36]
    _, low, high = _REST.unpack_from(body, at + 36)
    attributes = netlink.attributes(body, _ANSWER_SIZE)
    flags = attributes.get(SOCKOPT, b"\0\0")
    return UdpSocket(
        (_unpack(family, local), ports[0]),
        (_unpack(family, remote), ports[1]),
        low | high << 32,
        bool(flags[1] & ADDRESS_NO_PORT),
        int.from_bytes(attributes.get(MARK, b""), "little"),
    )


def _unpack(family: int, packed: bytes) -> Address:
    return unpack_ip(V4_MAPPED + packed[:4] if family == AF_INET else packed)
