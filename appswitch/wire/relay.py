"""What we say to the relay, and what it answers (shim/relay/join.h)."""

from __future__ import annotations

from attrs import frozen

from appswitch._wire import ffi, lib

MOST_HEAD: int = lib.AS_MOST_HEAD
TALLY_SIZE: int = ffi.sizeof("struct as_tally")

_MOST_IDLE = 2**32 - 1  # milliseconds


@frozen
class Tally:
    """pid: of the relay; pairs, pipes: that it has now; joined: pairs in all; passed: bytes in all, both ways."""

    pid: int
    pairs: int
    pipes: int
    joined: int
    passed: int


def milliseconds_of(idle: float | None) -> int:
    """Seconds as the relay has them; None: 0, without a limit."""
    return 0 if idle is None else min(max(int(idle * 1000), 1), _MOST_IDLE)


def encode_join(head: bytes, idle: float | None) -> bytes:
    """Goes with two sockets. idle: seconds. ValueError: the head is too long."""
    if len(head) > MOST_HEAD:
        raise ValueError(f"the head of a connection has {MOST_HEAD} bytes at most")
    join = {"op": lib.AS_JOIN, "idle_ms": milliseconds_of(idle)}
    return bytes(ffi.buffer(ffi.new("struct as_join *", join))) + head


def encode_doors() -> bytes:
    """Goes with a socket: the channel for its doors (wire/lanes.py)."""
    return bytes(ffi.buffer(ffi.new("struct as_join *", {"op": lib.AS_DOORS})))


def encode_question() -> bytes:
    """Its answer is a tally."""
    return bytes(ffi.buffer(ffi.new("struct as_join *", {"op": lib.AS_TALLY})))


def decode_tally(data: bytes) -> Tally:
    """ValueError: that is none."""
    if len(data) != TALLY_SIZE:
        raise ValueError("that is no tally of the relay")
    said = ffi.from_buffer("struct as_tally *", data)
    return Tally(said.pid, said.pairs, said.pipes, said.joined, said.bytes)
