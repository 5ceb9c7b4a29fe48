"""Questions and answers as bytes: what isn't one is a ValueError, whatever it is."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appswitch.model import Summary
from appswitch.wire import peer
from appswitch.wire.peer import (
    Announce,
    Announced,
    Ask,
    FlowOpened,
    LaneOpened,
    Leave,
    LookedUp,
    LookUp,
    OpenFlow,
    OpenLane,
    OpenOutside,
    OpenPorts,
    PortsOpened,
    Pull,
    Pulled,
    Refused,
    Reply,
    Status,
)

REQUESTS = [
    Announce(1, 2, bytes(16), 3, bytes(16), 80, 4),
    Leave(1, bytes(16), 80, ("a.example", "b.example"), external=True),
    LookUp(bytes(65000), udp=True),
    OpenFlow(2**64 - 1, 1, bytes(16), 3, 2, bytes(16), 80),
    OpenLane(1, 6),
    OpenOutside(2**64 - 1, 1, bytes(16), 3, bytes(16), 80, ("a.example",)),
    OpenPorts(3),
    Pull(),
    Pull(Summary(1, 2, 3)),
    Status(Summary(1, 2, 2**64 - 1)),
]
ANSWERS = [
    Announced(2**64 - 1),
    FlowOpened(),
    LaneOpened(2**64 - 1),
    LookedUp(bytes(65535)),
    PortsOpened([b"x", b""]),
    Pulled(b"x"),
    Status(Summary(1, 2, 3)),
    Refused(111, "nobody listens"),
]


@pytest.mark.parametrize("request_", REQUESTS)
def test_a_question(request_: peer.Request) -> None:
    assert peer.decode_ask(peer.encode(Ask(7, request_))) == Ask(7, request_)


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer(answer: peer.Answer) -> None:
    assert peer.decode_reply(peer.encode(Reply(7, answer))) == Reply(7, answer)


@given(st.binary(max_size=60))
def test_garbage(data: bytes) -> None:
    for decode in (peer.decode_ask, peer.decode_reply):
        with contextlib.suppress(ValueError):
            decode(data)


@pytest.mark.parametrize(
    "wrong",
    [
        [1, ["announce", 1, 2, bytes(15), 3, bytes(16), 80, 4]],
        [1, ["announce", 1, 2, bytes(16), 65536, bytes(16), 80, 4]],
        [1, ["announce", 1, 2, bytes(16), 3, bytes(16), 80, "4"]],
        [1, ["no such thing"]],
        ["1", ["pull"]],
        [1, ["pull", None, "more"]],
    ],
)
def test_what_is_not_quite_a_question(wrong: object) -> None:
    with pytest.raises(ValueError, match=r".+"):
        peer.decode_ask(msgspec.msgpack.encode(wrong))


@pytest.mark.parametrize(
    ("decode", "head"),
    [
        (peer.decode_ask, b"\x92\x01\x92\xa4pull\x81\xa1x"),
        (peer.decode_reply, b"\x92\x01\x92\xa6status\x81\xa1x"),
        (peer.decode_ask, b"\x92\x01\x92\xa4pul\xff\xc0"),
    ],
)
def test_what_is_nested_without_end_and_text_that_is_none(decode: Callable[[bytes], object], head: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        decode(head + b"\x91" * 5000 + b"\xc0")


@pytest.mark.parametrize("answer", [Announced(-1), Refused(-1, ""), Refused(1 << 40, "")])
def test_numbers_that_nobody_could_use(answer: peer.Answer) -> None:
    with pytest.raises(ValueError, match=r".+"):
        peer.decode_reply(peer.encode(Reply(7, answer)))
