"""Netlink messages: what every request and every answer has in common (netlink(7); linux/netlink.h)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

NOOP, ERROR, DONE = 1, 2, 3  # types of messages: NLMSG_...
REQUEST, DUMP = 0x1, 0x300  # flags: NLM_F_...

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_ERROR = struct.Struct("=i")


class Message(NamedTuple):
    """kind: NLMSG_... or the protocol's own; sequence: that of the request which it answers."""

    kind: int
    sequence: int
    body: bytes


def dump_request(kind: int, sequence: int, body: bytes) -> bytes:
    """A request for everything there is; the answers end with DONE."""
    return _HEADER.pack(_HEADER.size + len(body), kind, REQUEST | DUMP, sequence, 0) + body


def request(kind: int, sequence: int, body: bytes) -> bytes:
    """A request for one thing; there is one answer."""
    return _HEADER.pack(_HEADER.size + len(body), kind, REQUEST, sequence, 0) + body


def messages(datagram: bytes) -> Iterator[Message]:
    """The messages of one datagram. ValueError when it is none."""
    at = 0
    while at + _HEADER.size <= len(datagram):
        size, kind, _, sequence, _ = _HEADER.unpack_from(datagram, at)
        if not _HEADER.size <= size <= len(datagram) - at:
            raise ValueError(f"a netlink message of {size} bytes, {len(datagram) - at} are there")
        yield Message(kind, sequence, datagram[at + _HEADER.size : at + size])
        at += _aligned(size)


def error_of(message: Message) -> int:
    """The errno that an ERROR or a DONE carries; 0: none."""
    return -_ERROR.unpack_from(message.body)[0] if len(message.body) >= _ERROR.size else 0


def attributes(body: bytes, at: int) -> dict[int, bytes]:
    """The attributes that follow the fixed part of a message, of `at` bytes. type -> value."""
    found = {}
    while at + _ATTRIBUTE.size <= len(body):
        size, kind = _ATTRIBUTE.unpack_from(body, at)
        if not _ATTRIBUTE.size <= size <= len(body) - at:
            raise ValueError(f"a netlink attribute of {size} bytes, {len(body) - at} are there")
        found[kind] = body[at + _ATTRIBUTE.size : at + size]
        at += _aligned(size)
    return found


def _aligned(size: int) -> int:
    return (size + 3) & ~3
