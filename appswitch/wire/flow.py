"""UDP between hosts: what trap handlers send each other for the datagrams of programs (edge/flows.py).

    0        1 byte    its kind; the top bit says which side sends: 0 the one that announced the flow, 1 the other
    1        8 bytes   the flow: a random number that the announcing side has chosen
    9        8 bytes   a counter of this side, from 1 on
    17                 what the program sent
    the end  16 bytes  a MAC of all that (keyed BLAKE2b, RFC 7693), by a key of this flow and this side

Integers are big-endian. Keys come from the cluster's key and the number of the flow: so a trap handler that has started
anew still sees that a datagram comes from one of its cluster, and says that it knows no such flow; a stranger is never
answered. A counter is taken once (RFC 4303 3.4.3, the anti-replay window). Nothing is secret: it is no encryption.

A packet is built where the program's datagram was received: its data lies between a header and a MAC in one buffer, so
nothing is copied.
"""

from __future__ import annotations

import hmac
from enum import IntEnum
from hashlib import blake2b
from struct import Struct
from typing import NamedTuple

_HEAD = Struct("!BQQ")
_MAC_SIZE = 16
_SIDE = 0x80

DATA_AT = _HEAD.size
OVERHEAD = _HEAD.size + _MAC_SIZE
MOST = 65507  # bytes of a UDP datagram over IPv4 (udp(7)); over IPv6 it is 20 more
MOST_DATA = MOST - OVERHEAD

WINDOW = 1024  # counters: a datagram may come that much later than others


class Kind(IntEnum):
    """What a packet says."""

    DATA = 0
    CLOSED = 1
    """The flow has ended at the side that says so."""
    REFUSED = 2
    """It has ended, for nobody receives there: the sender's kernel would have been told so (ICMP)."""
    UNKNOWN = 3
    """The side that says so knows no such flow. The counter is that of the packet that it means."""


class Head(NamedTuple):
    """side: 0 or 1, who sends."""

    kind: int
    side: int
    flow: int
    counter: int


def read_head(packet: memoryview) -> Head | None:
    """What it says, true or not; None: it is too short to be a packet."""
    if len(packet) < OVERHEAD:
        return None
    kind, flow, counter = _HEAD.unpack_from(packet)
    return Head(kind & ~_SIDE, kind >> 7, flow, counter)


class Window:
    """Which counters have been seen: those older than WINDOW count as seen."""

    def __init__(self) -> None:
        self._last = 0
        self._seen = 1  # bit n: last - n

    def take(self, counter: int) -> bool:
        """Whether it is new. 0 never is."""
        ahead = counter - self._last
        if ahead > 0:
            self._seen = (self._seen << ahead | 1) & _ALL if ahead < WINDOW else 1
            self._last = counter
            return True
        bit = 1 << -ahead
        if -ahead >= WINDOW or counter <= 0 or self._seen & bit:
            return False
        self._seen |= bit
        return True


_ALL = (1 << WINDOW) - 1


class Session:
    """One side of a flow. secret: the cluster's key; side: ours, 0 when we have announced it."""

    def __init__(self, secret: bytes, flow: int, side: int) -> None:
        self.flow = flow
        self._side = side << 7
        self._ours = _keyed(secret, flow, side)
        self._theirs = _keyed(secret, flow, 1 - side)
        self._window = Window()
        self._counter = 0

    def seal(self, packet: memoryview, size: int, kind: Kind = Kind.DATA) -> memoryview:
        """The packet to be sent, for `size` bytes of data at DATA_AT of the buffer, which has OVERHEAD more."""
        self._counter += 1
        _HEAD.pack_into(packet, 0, kind | self._side, self.flow, self._counter)
        return _finish(packet, size, self._ours.copy())

    def open(self, packet: memoryview) -> Kind | None:
        """What a packet of this flow says; its data is `data_of` it. None: it isn't the peer's, or not new."""
        kind, _, counter = _HEAD.unpack_from(packet)
        if kind & _SIDE == self._side or not _is_authentic(packet, self._theirs.copy()):
            return None
        kind &= ~_SIDE
        if kind == Kind.UNKNOWN:  # of a peer that has no counter
            return Kind.UNKNOWN
        return Kind(kind) if kind in _KINDS and self._window.take(counter) else None


_KINDS = frozenset(Kind)


def data_of(packet: memoryview) -> memoryview:
    """What the program sent."""
    return packet[DATA_AT:-_MAC_SIZE]


def answer_unknown(secret: bytes, packet: memoryview) -> bytes | None:
    """What to answer to a packet of a flow that we don't know; None: nothing. Never longer than the packet."""
    head = read_head(packet)
    if head is None or head.kind == Kind.UNKNOWN:
        return None
    if not _is_authentic(packet, _keyed(secret, head.flow, head.side)):
        return None
    answer = memoryview(bytearray(OVERHEAD))
    side = 1 - head.side
    _HEAD.pack_into(answer, 0, Kind.UNKNOWN | side << 7, head.flow, head.counter)
    return bytes(_finish(answer, 0, _keyed(secret, head.flow, side)))


def _keyed(secret: bytes, flow: int, side: int) -> blake2b:
    """The MAC of what `side` sends, of nothing so far."""
    cluster = blake2b(secret, digest_size=32, person=b"appswitch flows").digest()
    key = blake2b(_HEAD.pack(side, flow, 0), key=cluster, digest_size=32, person=b"appswitch flow").digest()
    return blake2b(key=key, digest_size=_MAC_SIZE)


def _finish(packet: memoryview, size: int, mac: blake2b) -> memoryview:
    end = DATA_AT + size
    mac.update(packet[:end])
    packet[end : end + _MAC_SIZE] = mac.digest()
    return packet[: end + _MAC_SIZE]


def _is_authentic(packet: memoryview, mac: blake2b) -> bool:
    mac.update(packet[:-_MAC_SIZE])
    return hmac.compare_digest(mac.digest(), packet[-_MAC_SIZE:])
