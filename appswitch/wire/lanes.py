"""Lanes: what `appswitch serve` says to a relay that has doors, and what it hears of connections that have gone by a
lane (shim/lane/lane.h, shim/relay/doors.h).

The key of a lane comes from the session in which it was agreed on, so it isn't sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from struct import Struct

from attrs import frozen

from appswitch._lanes import ffi, lib
from appswitch.model import Address
from appswitch.wire.addresses import pack_ip
from appswitch.wire.peer_channel import Session
from appswitch.wire.relay import milliseconds_of

LANE_LASTS = 30.0  # seconds, from when it was agreed on
MOST_LANES: int = lib.AS_MOST_LANES
MOST_DOORS: int = lib.AS_MOST_DOORS
MOST_TURNS: int = lib.AS_MOST_TURNS
ENTRY_SIZE: int = ffi.sizeof("struct as_lane_entry")
MOST_REPORT: int = ffi.sizeof("struct as_door_report") + lib.AS_MOST_ENTRIES * ENTRY_SIZE

_ENTRY = Struct("=QQ52s4x")


@frozen
class Report:
    """Of a relay: entries (read_entries), or the number of a question that is answered by now, or that a client comes
    back: to which door, from which lane, why.
    """

    entries: bytes = b""
    answered: int | None = None
    door: int | None = None
    lane: int = 0
    error: int = 0


def lane_key(session: Session, number: int) -> bytes:
    """Of the lane that was given this number in the session."""
    return session.key(f"lane {number}")[: lib.AS_LANE_KEY]


def read_entries(entries: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Cookie, number of the lane, struct as_client_name."""
    yield from _ENTRY.iter_unpack(entries)


def encode_lane(place: int, number: int, key: bytes, address: tuple[Address, int]) -> bytes:
    """Has the relay know a lane at this place of its own. address: of the other host's peer port."""
    return _order(op=lib.AS_LANE_OPEN, number=place, lane=number, key=key, ip=pack_ip(address[0]), port=address[1])


def encode_door(door: int, turns: Sequence[int], idle: float | None) -> bytes:
    """Goes with a listening socket. turns: places of lanes; idle: seconds, as of wire/relay.py."""
    order = _order(op=lib.AS_DOOR_OPEN, number=door, idle_ms=milliseconds_of(idle), count=len(turns))
    return order + _turns(turns)


def encode_turns(door: int, turns: Sequence[int]) -> bytes:
    """Other ones, of a door that is open."""
    return _order(op=lib.AS_DOOR_TURNS, number=door, count=len(turns)) + _turns(turns)


def encode_shut(door: int) -> bytes:
    """It is a door no longer."""
    return _order(op=lib.AS_DOOR_SHUT, number=door)


def encode_question(number: int) -> bytes:
    """Once it is answered, all entries have been told that there are."""
    return _order(op=lib.AS_TELL_ALL, number=number)


def decode_report(data: bytes) -> Report:
    """ValueError: that is none."""
    size = ffi.sizeof("struct as_door_report")
    if len(data) < size:
        raise ValueError("that is no report of the relay")
    said = ffi.from_buffer("struct as_door_report *", data)
    if said.word == lib.AS_ENTRIES and len(data) == size + said.count * ENTRY_SIZE:
        return Report(entries=data[size:])
    if said.word == lib.AS_TOLD_ALL:
        return Report(answered=said.door)
    if said.word == lib.AS_GIVEN_BACK:
        return Report(door=said.door, lane=said.lane, error=said.error)
    raise ValueError("that is no report of the relay")


def _order(**fields: object) -> bytes:
    return bytes(ffi.buffer(ffi.new("struct as_door_order *", fields)))


def _turns(turns: Sequence[int]) -> bytes:
    return bytes(ffi.buffer(ffi.new("uint16_t[]", list(turns))))
