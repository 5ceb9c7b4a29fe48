"""The head of a connection by which a proxy says whose it is: PROXY protocol 2 (HAProxy's proxy-protocol.txt)."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

from appswitch.model import Address

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_PROXY = 0x21  # version 2, and the command: not a connection of the proxy's own
_TCP4, _TCP6 = 0x11, 0x21

Pair = tuple[Address, int]


def encode_head(source: Pair, dest: Pair) -> bytes:
    """For a TCP connection from `source`, which was made to `dest`. Both are of one IP version."""
    family = _TCP4 if isinstance(source[0], IPv4Address) else _TCP6
    body = source[0].packed + dest[0].packed + struct.pack("!HH", source[1], dest[1])
    return SIGNATURE + struct.pack("!BBH", _PROXY, family, len(body)) + body
