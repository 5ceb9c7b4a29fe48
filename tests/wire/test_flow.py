"""Packets between trap handlers: hypothesis plays the network, and the stranger on it."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from appswitch.wire import flow
from appswitch.wire.flow import Kind, Session, Window

SECRET, FLOW = b"a secret of the cluster's", 0x0123456789ABCDEF


def sessions(number: int = FLOW, secret: bytes = SECRET) -> tuple[Session, Session]:
    return Session(secret, number, 0), Session(secret, number, 1)


def packet(sender: Session, data: bytes = b"data", kind: Kind = Kind.DATA) -> bytes:
    room = memoryview(bytearray(len(data) + flow.OVERHEAD))
    room[flow.DATA_AT : flow.DATA_AT + len(data)] = data
    return bytes(sender.seal(room, len(data), kind))


def opened(receiver: Session, sent: bytes) -> tuple[Kind, bytes] | None:
    kind = receiver.open(memoryview(sent))
    return None if kind is None else (kind, bytes(flow.data_of(memoryview(sent))))


@given(st.binary(max_size=200), st.sampled_from(list(Kind)), st.booleans())
def test_what_is_sent_arrives_once(data: bytes, kind: Kind, reverse: bool) -> None:
    near, far = reversed(sessions()) if reverse else sessions()
    sent = packet(near, data, kind)
    assert len(sent) == len(data) + flow.OVERHEAD
    assert opened(far, sent) == (kind, data)
    assert kind is Kind.UNKNOWN or opened(far, sent) is None


def test_the_largest() -> None:
    near, far = sessions()
    data = bytes(flow.MOST_DATA)
    sent = packet(near, data)
    assert len(sent) == 65507
    assert opened(far, sent) == (Kind.DATA, data)


@given(st.data())
def test_a_packet_that_was_changed_is_none(data: st.DataObject) -> None:
    near, far = sessions()
    sent = bytearray(packet(near, b"some data"))
    at = data.draw(st.integers(0, len(sent) - 1))
    sent[at] ^= data.draw(st.integers(1, 255))
    assert opened(far, bytes(sent)) is None


@given(st.binary(max_size=100))
def test_what_a_stranger_sends_is_none(sent: bytes) -> None:
    head = flow.read_head(memoryview(sent))
    assert (head is None) == (len(sent) < flow.OVERHEAD)
    if head is not None:
        assert opened(sessions()[1], sent) is None
    assert flow.answer_unknown(SECRET, memoryview(sent)) is None


def test_a_packet_is_of_one_flow_of_one_cluster_from_one_side() -> None:
    near, far = sessions()
    sent = packet(near)
    for other in (near, *sessions(FLOW + 1), *sessions(secret=b"another")):
        assert opened(other, sent) is None
    assert opened(far, sent) == (Kind.DATA, b"data")


@given(st.lists(st.integers(1, 3 * flow.WINDOW)))
def test_the_window_takes_each_counter_once_and_all_that_are_not_too_late(counters: list[int]) -> None:
    window, seen, last = Window(), set[int](), 0
    for each in counters:
        assert window.take(each) == (each not in seen and each > last - flow.WINDOW)
        seen.add(each)
        last = max(last, each)


@given(st.lists(st.binary(max_size=8), max_size=40), st.randoms())
def test_a_network_that_loses_doubles_and_reorders(sent: list[bytes], random: Random) -> None:
    near, far = sessions()
    packets = [packet(near, each) for each in sent]
    on_the_way = [each for each in packets for _ in range(random.choice((0, 1, 1, 2)))]
    random.shuffle(on_the_way)
    got = [each for each in (opened(far, one) for one in on_the_way) if each is not None]
    assert sorted(got) == sorted(
        (Kind.DATA, data) for data, one in zip(sent, packets, strict=True) if one in on_the_way
    )


def test_who_knows_no_such_flow_says_so_to_those_of_the_cluster() -> None:
    for near, far in (sessions(), sessions()[::-1]):
        sent = packet(near, b"")
        answer = flow.answer_unknown(SECRET, memoryview(sent))
        assert answer is not None
        assert len(answer) <= len(sent)
        assert opened(near, answer) == (Kind.UNKNOWN, b"")
        assert opened(far, answer) is None
        assert flow.answer_unknown(SECRET, memoryview(answer)) is None, "no two go on for ever"
        assert flow.answer_unknown(b"another", memoryview(sent)) is None
