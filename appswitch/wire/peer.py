"""What trap handlers ask each other, and answer, over a peer channel (wire/peer_channel.py): msgpack, an array each.

Whoever has opened a channel asks; the other side answers, in whatever order it is done: questions have numbers. What
is added here is known to all nodes of one version only (wire/peer_channel.py, VERSION).
"""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec

from appswitch.model import HealthState, Summary

Ip = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
"""As wire/addresses.py packs it."""

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]

MOST_NAMES = 64


class Pull(msgspec.Struct, frozen=True, array_like=True, tag="pull", forbid_unknown_fields=True):
    """What has changed in your own entries since `known`? None: all of them."""

    known: Summary | None = None


class Pulled(msgspec.Struct, frozen=True, array_like=True, tag="pulled", forbid_unknown_fields=True):
    """A delta (wire/records.py)."""

    delta: bytes


class Status(msgspec.Struct, frozen=True, array_like=True, tag="status", forbid_unknown_fields=True):
    """How far my log is, and what I have of yours; and you? The answer is one, too."""

    mine: Summary
    yours: Summary | None = None


NO_APP = 0
"""The numbers of apps begin with 1."""


class Announce(msgspec.Struct, frozen=True, array_like=True, tag="announce", forbid_unknown_fields=True):
    """A TCP connection is to come: from the app that has the number `app` on the asking node, to one of your listeners.

    NO_APP: from a client outside, for whom the asking node is the gateway.
    source: what the server is to see; dest: as the client asked for it; family: 4 or 6, of the client's socket.
    """

    app: int
    listener: int
    source_ip: Ip
    source_port: Port
    dest_ip: Ip
    dest_port: Port
    family: int


class Announced(msgspec.Struct, frozen=True, array_like=True, tag="announced", forbid_unknown_fields=True):
    """It may come, and begins with a preamble that has this number (wire/peer_channel.py: arrival)."""

    number: Annotated[int, msgspec.Meta(ge=0)]


class OpenLane(msgspec.Struct, frozen=True, array_like=True, tag="lane", forbid_unknown_fields=True):
    """From a gateway: may all clients outside come to one of your listeners, with nothing announced for each of them?

    family: 4 or 6, of the clients.
    """

    listener: int
    family: int


class LaneOpened(msgspec.Struct, frozen=True, array_like=True, tag="lane-opened", forbid_unknown_fields=True):
    """They may, each with a record of the lane that has this number (wire/lanes.py)."""

    number: Annotated[int, msgspec.Meta(ge=0)]


HostName = Annotated[str, msgspec.Meta(max_length=255)]
HostNames = Annotated[tuple[HostName, ...], msgspec.Meta(max_length=MOST_NAMES)]


class Leave(msgspec.Struct, frozen=True, array_like=True, tag="leave", forbid_unknown_fields=True):
    """A TCP connection is to come, and to be carried on to an address outside, for the app that has the number `app` on
    the asking node. The answer is Announced; what comes back by the connection begins with what yours came to: four
    bytes, an errno (big-endian), 0: it is connected. names: by which its node's DNS has found the address; external: it
    is that of an external server.
    """

    app: int
    dest_ip: Ip
    dest_port: Port
    names: HostNames = ()
    external: bool = False


class LookUp(msgspec.Struct, frozen=True, array_like=True, tag="look-up", forbid_unknown_fields=True):
    """What do your name servers say to this DNS query? udp: by UDP, so the answer may be cut."""

    query: Annotated[bytes, msgspec.Meta(max_length=65000)]
    udp: bool


class LookedUp(msgspec.Struct, frozen=True, array_like=True, tag="looked-up", forbid_unknown_fields=True):
    """The answer to LookUp; its id is the query's."""

    reply: Annotated[bytes, msgspec.Meta(max_length=65535)]


class OpenFlow(msgspec.Struct, frozen=True, array_like=True, tag="flow", forbid_unknown_fields=True):
    """Datagrams are to come: from the app that has the number `client` on the asking node, to your app `server`.

    flow: of the packets (wire/flow.py); source, dest: the names of the two sockets.
    """

    flow: Annotated[int, msgspec.Meta(ge=0)]
    client: int
    source_ip: Ip
    source_port: Port
    server: int
    dest_ip: Ip
    dest_port: Port


class OpenOutside(msgspec.Struct, frozen=True, array_like=True, tag="flow-outside", forbid_unknown_fields=True):
    """As OpenFlow, but to an address outside; names: as of Leave."""

    flow: Annotated[int, msgspec.Meta(ge=0)]
    client: int
    source_ip: Ip
    source_port: Port
    dest_ip: Ip
    dest_port: Port
    names: HostNames = ()


class FlowOpened(msgspec.Struct, frozen=True, array_like=True, tag="flow-opened", forbid_unknown_fields=True):
    """They may come, and what is sent back goes the same way."""


class AskHealths(msgspec.Struct, frozen=True, array_like=True, tag="ask-healths", forbid_unknown_fields=True):
    """What do you, a gateway, know of the backends of external servers?"""


class Healths(msgspec.Struct, frozen=True, array_like=True, tag="healths", forbid_unknown_fields=True):
    """backends: host, port, how it is, why."""

    backends: list[tuple[str, Port, HealthState, str | None]]


class OpenPorts(msgspec.Struct, frozen=True, array_like=True, tag="open-ports", forbid_unknown_fields=True):
    """The app that has the number `app` on the asking node is about to start: what of your ports does it get?"""

    app: int


class PortsOpened(msgspec.Struct, frozen=True, array_like=True, tag="ports-opened", forbid_unknown_fields=True):
    """These: values of a gateway's records (wire/records.py)."""

    records: list[bytes]


class Refused(msgspec.Struct, frozen=True, array_like=True, tag="refused", forbid_unknown_fields=True):
    """No. error: an errno; reason: for people."""

    error: Annotated[int, msgspec.Meta(ge=1, le=4095)]  # as the kernel's (linux/err.h, MAX_ERRNO)
    reason: str


Request = Announce | AskHealths | Leave | LookUp | OpenFlow | OpenLane | OpenOutside | OpenPorts | Pull | Status
Answer = Announced | FlowOpened | Healths | LaneOpened | LookedUp | PortsOpened | Pulled | Status | Refused


class Ask(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A question. number: of this channel, never used again."""

    number: int
    request: Request


class Reply(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The answer to the question of that number."""

    number: int
    answer: Answer


Said = TypeVar("Said", Ask, Reply)

_ask: msgspec.msgpack.Decoder[Ask] = msgspec.msgpack.Decoder(Ask)
_reply: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


def encode(message: Ask | Reply) -> bytes:
    """The body of a frame."""
    return msgspec.msgpack.encode(message)


def decode_ask(body: bytes) -> Ask:
    """ValueError (msgspec's are) when it is none."""
    return _decode(_ask, body)


def decode_reply(body: bytes) -> Reply:
    """ValueError when it is none."""
    return _decode(_reply, body)


def _decode(decoder: msgspec.msgpack.Decoder[Said], body: bytes) -> Said:
    try:
        return decoder.decode(body)
    except RecursionError as error:  # in what it skips: a field of a Summary that we don't know
        raise ValueError(str(error)) from None
