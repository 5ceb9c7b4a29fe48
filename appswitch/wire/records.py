"""What nodes tell each other of their apps and listeners: bytes to model and back, as MessagePack arrays.

An entry has a key, "3" for app 3 of its node, "3/9" for that app's listener 9, "g2" for what it has opened as a
gateway, and a value, which doesn't repeat it. A delta carries such entries of one owner; cut into pieces it fits Serf's
user events.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Annotated

import msgspec
from attrs import evolve

from appswitch.errors import AppSwitchError
from appswitch.model import (
    GATEWAY_KEY,
    App,
    AppRecord,
    Delta,
    Expose,
    Exposure,
    GatewayRecord,
    ListenerRecord,
    Protocol,
    Record,
)

COMMAND = 80  # characters of a command that others are told
MOST_PIECES = 8  # of a delta; where there are more, the others had better ask for it

_KEY = re.compile(r"(0|[1-9][0-9]{0,8})(/(0|[1-9][0-9]{0,15}))?")
_GATEWAY_KEY = re.compile(GATEWAY_KEY + r"(0|[1-9][0-9]{0,8})")
_NETNS, _EXCLUSIVE, _TCP, _DRAINING, _DERIVED, _EXTERNAL = 1, 2, 4, 8, 16, 32
_V6ONLY, _UDP = 1, 2

_Packed = Annotated[bytes, msgspec.Meta(min_length=4, max_length=16)]
_Natural = Annotated[int, msgspec.Meta(ge=0)]
_Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class _Expose(msgspec.Struct, array_like=True):
    port: _Port
    gateway_port: _Port | None
    gateway: str | None
    proxy: bool


class _App(msgspec.Struct, array_like=True):
    name: str | None
    ip: _Packed
    tags: list[tuple[str, str]]
    flags: _Natural
    started: float
    pid: _Natural
    command: list[str]
    exposes: list[_Expose]


class _Gateway(msgspec.Struct, array_like=True):
    ip: _Packed
    port: _Port
    gateway_port: _Port | None
    places: list[tuple[_Packed, _Port]]
    error: str | None


class _Listener(msgspec.Struct, array_like=True):
    family: _Natural
    ip: _Packed
    port: _Port
    flags: _Natural
    outside: tuple[str, _Port] | None = None


class _Delta(msgspec.Struct, array_like=True):
    owner: str
    incarnation: _Natural
    after: _Natural
    seq: _Natural
    digest: _Natural | None
    changes: list[tuple[str, bytes | None]]
    whole: bool


UNREADABLE = (ValueError, RecursionError)  # msgspec's, text that is no UTF-8; nested without end

_encoder = msgspec.msgpack.Encoder()
_app_decoder = msgspec.msgpack.Decoder(_App)
_listener_decoder = msgspec.msgpack.Decoder(_Listener)
_gateway_decoder = msgspec.msgpack.Decoder(_Gateway)
_delta_decoder = msgspec.msgpack.Decoder(_Delta)


def encode(record: Record) -> bytes:
    """The value of an entry."""
    if isinstance(record, ListenerRecord):
        flags = record.v6only * _V6ONLY | (record.protocol is Protocol.UDP) * _UDP
        return _encoder.encode(_Listener(record.family, record.ip.packed, record.port, flags, record.outside))
    if isinstance(record, GatewayRecord):
        return _encoder.encode(_said_by_gateway(record))
    app = record.app
    flags = app.netns * _NETNS | app.exclusive * _EXCLUSIVE | app.tcp * _TCP | record.draining * _DRAINING
    flags |= app.derived * _DERIVED | app.external * _EXTERNAL
    command = _cut(app.command)
    exposes = [_Expose(each.port, each.gateway_port, each.gateway, each.proxy) for each in app.exposes]
    return _encoder.encode(_App(app.name, app.ip.packed, list(app.tags), flags, app.started, app.pid, command, exposes))


def decode(node: str, key: str, value: bytes) -> Record:
    """An entry of `node`. AppSwitchError `bad-record` when it is none."""
    if _GATEWAY_KEY.fullmatch(key):
        return decode_gateway(node, value)
    app, listener = check_key(key)
    try:
        if listener is None:
            return _app(node, app, _app_decoder.decode(value))
        return _listener(listener, _listener_decoder.decode(value))
    except UNREADABLE as error:
        raise _bad(node, f"entry {key} can't be read: {error}") from None


def decode_gateway(node: str, value: bytes) -> GatewayRecord:
    """What `node`, a gateway, has opened. AppSwitchError `bad-record`."""
    try:
        return _gateway(_gateway_decoder.decode(value))
    except UNREADABLE as error:
        raise _bad(node, f"what a gateway has opened can't be read: {error}") from None


def check_key(key: str) -> tuple[int, int | None]:
    """The numbers of an app and, perhaps, a listener. AppSwitchError `bad-record` when it has another form."""
    match = _KEY.fullmatch(key)
    if match is None:
        raise AppSwitchError("bad-record", f"{key!r} is no key of an entry")
    return int(match[1]), int(match[3]) if match[3] else None


def _app(node: str, number: int, said: _App) -> AppRecord:
    app = App(
        id=number,
        ip=ip_address(said.ip),
        node=node,
        name=said.name,
        tags=tuple(said.tags),
        pid=said.pid,
        command=tuple(said.command),
        netns=bool(said.flags & _NETNS),
        exclusive=bool(said.flags & _EXCLUSIVE),
        tcp=bool(said.flags & _TCP),
        started=said.started,
        derived=bool(said.flags & _DERIVED),
        external=bool(said.flags & _EXTERNAL),
        exposes=tuple(Expose(each.port, each.gateway_port, each.gateway, each.proxy) for each in said.exposes),
    )
    return AppRecord(app, bool(said.flags & _DRAINING))


def _listener(number: int, said: _Listener) -> ListenerRecord:
    if said.family not in (4, 6):
        raise ValueError(f"{said.family} is no IP version")
    protocol = Protocol.UDP if said.flags & _UDP else Protocol.TCP
    v6only = bool(said.flags & _V6ONLY)
    return ListenerRecord(number, said.family, ip_address(said.ip), said.port, v6only, protocol, said.outside)


def _said_by_gateway(record: GatewayRecord) -> _Gateway:
    exposure = record.exposure
    places = [(ip.packed, port) for ip, port in record.places]
    return _Gateway(exposure.ip.packed, exposure.port, exposure.gateway_port, places, record.error)


def _gateway(said: _Gateway) -> GatewayRecord:
    exposure = Exposure(ip_address(said.ip), said.port, said.gateway_port)
    return GatewayRecord(exposure, tuple((ip_address(ip), port) for ip, port in said.places), said.error)


def _cut(command: tuple[str, ...]) -> list[str]:
    """As many words as fit; the last one shows that there are more."""
    words: list[str] = []
    room = COMMAND
    for word in command:
        if len(word) > room:
            return [*words, word[:room] + "…"]
        words.append(word)
        room -= len(word) + 1
        if room <= 0:
            break
    return words if len(words) == len(command) else [*words, "…"]


# --- deltas


def encode_delta(delta: Delta) -> bytes:
    """For the wire."""
    changes = list(delta.changes)
    return _encoder.encode(
        _Delta(delta.owner, delta.incarnation, delta.after, delta.seq, delta.digest, changes, delta.whole)
    )


def decode_delta(data: bytes) -> Delta:
    """AppSwitchError `bad-record` when it is none."""
    try:
        said = _delta_decoder.decode(data)
    except UNREADABLE as error:
        raise AppSwitchError("bad-record", f"a delta can't be read: {error}") from None
    if not said.whole and said.seq - said.after != len(said.changes):
        raise _bad(said.owner, f"a delta has {len(said.changes)} changes of {said.seq - said.after}")
    return Delta(said.owner, said.incarnation, said.after, said.seq, said.digest, tuple(said.changes), said.whole)


def pieces(delta: Delta, room: int) -> list[bytes] | None:
    """The delta, in parts of at most `room` bytes, to be sent in turn; None when the others had better ask for it."""
    if delta.whole:
        return None
    if not delta.changes:
        return [encode_delta(delta)]
    head = len(encode_delta(evolve(delta, changes=()))) + 4  # a longer array has a longer head
    cuts, used = [0], head
    for place, change in enumerate(delta.changes):
        size = len(_encoder.encode(change))
        if head + size > room:
            return None
        if used + size > room:
            cuts.append(place)
            used = head
        used += size
    if len(cuts) > MOST_PIECES:
        return None
    return [
        encode_delta(_part(delta, start, end)) for start, end in zip(cuts, [*cuts[1:], len(delta.changes)], strict=True)
    ]


def _part(delta: Delta, start: int, end: int) -> Delta:
    last = end == len(delta.changes)
    changes = delta.changes[start:end]
    return evolve(
        delta, after=delta.after + start, seq=delta.after + end, digest=delta.digest if last else None, changes=changes
    )


def _bad(node: str, message: str) -> AppSwitchError:
    return AppSwitchError("bad-record", f"node {node}: {message}", "do all nodes run the same version of appswitch?")
