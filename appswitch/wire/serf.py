"""The RPC of a Serf agent: MessagePack objects, one after the other, over TCP.

A request is a header {Command, Seq} and, for most commands, a body; the answer is {Seq, Error} and, for some, a body
(BODIES). After `stream`, each event comes as another such answer. Bytes are written as `bin` by Serf 0.9 and as strings
(`raw`) by older ones, where they may be any bytes: both are read (msgspec.Raw, which looks inside nothing).

Source: Serf's cmd/serf/command/agent/ipc.go; MessagePack's spec.md, old and new.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from ipaddress import ip_address
from typing import TypeVar

import msgspec

from appswitch.model import Address

MAX_OBJECT = 1 << 24  # bytes; ten thousand members take some 3 MB
VERSION = 1

T = TypeVar("T")


class Header(msgspec.Struct):
    """error: empty: all is well."""

    seq: int = msgspec.field(name="Seq")
    error: str = msgspec.field(name="Error", default="")


class AgentMember(msgspec.Struct):
    """A member as its agent has it. status: none, alive, leaving, left or failed."""

    name: str = msgspec.field(name="Name")
    addr: msgspec.Raw = msgspec.field(name="Addr")
    port: int = msgspec.field(name="Port")
    status: str = msgspec.field(name="Status")
    tags: dict[str, str] | None = msgspec.field(name="Tags", default=None)

    @property
    def address(self) -> Address:
        """ValueError when it is none."""
        found = ip_address(raw_bytes(self.addr))  # Go's net.IP: IPv4 takes 4 bytes or 16
        return getattr(found, "ipv4_mapped", None) or found


class Members(msgspec.Struct):
    """The answer to `members`."""

    members: list[AgentMember] | None = msgspec.field(name="Members")


class Joined(msgspec.Struct):
    """The answer to `join`, which comes along with an error, too. num: how many could be reached."""

    num: int = msgspec.field(name="Num")


class Vector(msgspec.Struct):
    """Where a member is in Serf's space of round-trip times, all in seconds (Serf's coordinate/coordinate.go)."""

    vec: list[float] | None = msgspec.field(name="Vec", default=None)
    adjustment: float = msgspec.field(name="Adjustment", default=0.0)
    height: float = msgspec.field(name="Height", default=0.0)

    def distance(self, other: Vector) -> float:
        """The round trip between the two, estimated, in seconds. ValueError: they are of different spaces."""
        apart = math.dist(self.vec or (), other.vec or ())
        raw = apart + self.height + other.height
        adjusted = raw + self.adjustment + other.adjustment
        return adjusted if adjusted > 0 else raw


class Coordinate(msgspec.Struct):
    """The answer to `get-coordinate`. ok: there is one."""

    coord: Vector = msgspec.field(name="Coord")
    ok: bool = msgspec.field(name="Ok")


class StreamRecord(msgspec.Struct):
    """What follows an answer to `stream`. event: user, member-join, ...; name and payload: of a user event."""

    event: str = msgspec.field(name="Event")
    name: str = msgspec.field(name="Name", default="")
    payload: msgspec.Raw = msgspec.field(name="Payload", default=msgspec.Raw(b"\xc0"))


BODIES: dict[str, type] = {"members": Members, "join": Joined, "get-coordinate": Coordinate}
"""What follows the header of an answer, an error's, too. Other commands: nothing."""


def request(command: str, seq: int, body: dict[str, object] | None = None) -> bytes:
    """A request's bytes."""
    header = msgspec.msgpack.encode({"Command": command, "Seq": seq})
    return header + (b"" if body is None else msgspec.msgpack.encode(body))


def decode(data: bytes, kind: type[T]) -> T:
    """One object. ValueError says what is wrong with it."""
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"the Serf agent's {kind.__name__} can't be read: {error}") from None


def raw_bytes(raw: msgspec.Raw) -> bytes:
    """The bytes of a bin, or of a string, whatever they are; of nil none. ValueError when it is something else."""
    data = bytes(raw)
    first = data[0]
    if first == _NIL:
        return b""
    if 0xA0 <= first <= 0xBF:
        return data[1:]
    if first in _SIZED and first not in _EXTENSIONS:
        return data[1 + _SIZED[first].size :]
    raise ValueError(f"the Serf agent sent {data[:16].hex()} where bytes should be")


class Objects:
    """Cuts a stream into whole MessagePack objects, each looked at once, however it arrives.

    It reads the first bytes of each object for its size and counts how many are still to come, so that neither depth
    nor what is inside matters.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._at = 0
        self._missing = 1
        """Objects until the whole one is there; an array of two says: two more."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The objects that `data` completes. ValueError: it is no MessagePack, or too much."""
        self._buffer += data
        while self._scan():
            yield bytes(self._buffer[: self._at])
            del self._buffer[: self._at]
            self._at, self._missing = 0, 1

    def _scan(self) -> bool:
        """Goes on as far as it can; whether an object is complete."""
        while self._missing:
            step = _step(self._buffer, self._at)
            if step is None:
                return False
            size, inside = step
            self._at += size
            self._missing += inside - 1
            if self._at + self._missing > MAX_OBJECT:
                raise ValueError(f"the Serf agent sent an object of more than {MAX_OBJECT} bytes")
        return self._at <= len(self._buffer)


_NIL = 0xC0
_FIXED = {
    **dict.fromkeys((_NIL, 0xC2, 0xC3), 1),
    **dict.fromkeys((0xCC, 0xD0), 2),
    **dict.fromkeys((0xCD, 0xD1, 0xD4), 3),
    **dict.fromkeys((0xCA, 0xCE, 0xD2), 5),
    **dict.fromkeys((0xCB, 0xCF, 0xD3), 9),
    **dict(zip((0xD5, 0xD6, 0xD7, 0xD8), (4, 6, 10, 18), strict=True)),
}
"""The size of objects that their first byte tells."""
_U8, _U16, _U32 = struct.Struct(">B"), struct.Struct(">H"), struct.Struct(">I")
_EXTENSIONS = (0xC7, 0xC8, 0xC9)
_SIZED = {
    0xC4: _U8,
    0xC5: _U16,
    0xC6: _U32,
    0xC7: _U8,
    0xC8: _U16,
    0xC9: _U32,
    0xD9: _U8,
    0xDA: _U16,
    0xDB: _U32,
}
"""bin, ext and str: a length, then that many bytes (ext: one more, its type)."""
_COUNTED = {0xDC: (_U16, 1), 0xDD: (_U32, 1), 0xDE: (_U16, 2), 0xDF: (_U32, 2)}
"""Arrays and maps: a count, then that many objects, of a map two for each."""


def _step(buffer: bytearray, at: int) -> tuple[int, int] | None:
    """(bytes, objects inside) of the object at `at`; None when too little of it is there."""
    if at >= len(buffer):
        return None
    first = buffer[at]
    if first <= 0x7F or first >= 0xE0:
        return 1, 0
    if first <= 0x8F:
        return 1, 2 * (first & 0x0F)
    if first <= 0x9F:
        return 1, first & 0x0F
    if first <= 0xBF:
        return 1 + (first & 0x1F), 0
    if first in _FIXED:
        return _FIXED[first], 0
    if first in _SIZED:
        length = _number(buffer, at + 1, _SIZED[first])
        return length and (1 + length[0] + length[1] + (first in _EXTENSIONS), 0)
    if first in _COUNTED:
        kind, each = _COUNTED[first]
        count = _number(buffer, at + 1, kind)
        return count and (1 + count[0], count[1] * each)
    raise ValueError(f"the Serf agent sent a byte {first:#x} where a MessagePack object should begin")


def _number(buffer: bytearray, at: int, kind: struct.Struct) -> tuple[int, int] | None:
    """(its size, the number)"""
    return (kind.size, kind.unpack_from(buffer, at)[0]) if at + kind.size <= len(buffer) else None
