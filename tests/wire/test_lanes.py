"""Records of lanes, their MACs and numbers, and what is said to a relay that has doors."""

from __future__ import annotations

import contextlib
from ipaddress import IPv4Address

import pytest
from appswitch._lanes import ffi, lib
from hypothesis import given
from hypothesis import strategies as st

from appswitch.wire import lanes, peer_channel
from appswitch.wire.lanes import Report
from appswitch.wire.peer_channel import HEAD_SIZE, PeerError, Session, rest_of

KEYS = st.binary(min_size=16, max_size=16)
SIZE = ffi.sizeof("struct as_lane_record")


def sealed(key: bytes, lane: int = 1, number: int = 1, source: bytes = bytes(16)) -> bytes:
    record = ffi.new("struct as_lane_record *", {"lane": lane, "number": number, "source_ip": source})
    lib.seal_record(record, key)
    return bytes(ffi.buffer(record))


def is_sealed(record: bytes, key: bytes) -> bool:
    return bool(lib.is_sealed(ffi.from_buffer("struct as_lane_record *", record), key))


def refusal(record: bytes, key: bytes) -> bytes:
    made = ffi.new("uint8_t[]", lib.AS_REFUSAL)
    lib.make_refusal(ffi.from_buffer("struct as_lane_record *", record), key, made)
    return bytes(made)


@pytest.mark.parametrize(
    ("size", "mac"),
    [
        (0, "a3817f04ba25a8e66df67214c7550293"),  # of the authors' own vectors
        (1, "da87c1d86b99af44347659119b22fc45"),
        (2, "8177228da4a45dc7fca38bdef60affe4"),
        (63, "5150d1772f50834a503e069a973fbd7c"),  # of openssl mac
    ],
)
def test_siphash(size: int, mac: str) -> None:
    out = ffi.new("uint8_t[]", 16)
    lib.siphash128(bytes(range(16)), bytes(range(64)), size, out)
    assert bytes(out).hex() == mac


@given(KEYS, st.integers(0, 2**64 - 1), st.binary(min_size=16, max_size=16), st.integers(0, SIZE * 8 - 1))
def test_any_changed_bit_breaks_the_seal(key: bytes, number: int, source: bytes, bit: int) -> None:
    record = sealed(key, 7, number, source)
    assert is_sealed(record, key)
    changed = bytearray(record)
    changed[bit // 8] ^= 1 << bit % 8
    assert not is_sealed(bytes(changed), key)


@given(KEYS, KEYS)
def test_only_who_has_the_key_can_make_one_or_refuse_it(key: bytes, other: bytes) -> None:
    record = sealed(key)
    assert is_sealed(record, other) == (key == other)
    assert refusal(record, key) != record[-16:]
    assert (refusal(record, key) == refusal(record, other)) == (key == other)
    assert refusal(sealed(key, number=2), key) != refusal(record, key)


@given(st.binary(max_size=SIZE))
def test_what_may_be_one(begin: bytes) -> None:
    record = sealed(bytes(16))
    assert lib.may_be_record(begin, len(begin)) == (begin[:HEAD_SIZE] == record[: min(len(begin), HEAD_SIZE)])
    assert lib.may_be_record(record, len(begin))


def test_it_is_of_our_version_and_no_opening_that_python_reads() -> None:
    assert lib.AS_PEER_VERSION == peer_channel.VERSION
    with pytest.raises(PeerError, match="doesn't speak our protocol"):
        rest_of(sealed(bytes(16))[:HEAD_SIZE])


@given(st.lists(st.integers(0, 3 * lib.AS_WINDOW) | st.integers(0, 2**64 - 1), max_size=300))
def test_each_number_is_good_once_and_not_too_late(numbers: list[int]) -> None:
    window, seen, highest = ffi.new("struct as_window *"), set(), 0
    for number in numbers:
        good = number > 0 and number not in seen and (number > highest or highest - number < lib.AS_WINDOW)
        assert lib.use_number(window, number) == good
        if good:
            seen.add(number)
            highest = max(highest, number)


def test_all_numbers_in_their_order() -> None:
    window = ffi.new("struct as_window *")
    assert all(lib.use_number(window, number) for number in range(1, 3 * lib.AS_WINDOW))
    assert not any(lib.use_number(window, number) for number in range(1, 3 * lib.AS_WINDOW, 7))


def test_a_lanes_key_is_its_own() -> None:
    session, other = Session(b"s" * 32), Session(b"t" * 32)
    keys = {lanes.lane_key(each, number) for each in (session, other) for number in (1, 2)}
    assert len(keys) == 4
    assert {len(each) for each in keys} == {lib.AS_LANE_KEY}


def test_orders_have_the_size_that_is_awaited() -> None:
    size = ffi.sizeof("struct as_door_order")
    assert len(lanes.encode_lane(3, 2**64 - 1, b"k" * 16, (IPv4Address("10.0.0.1"), 7947))) == size
    assert len(lanes.encode_door(1, [3, 4, 3], 2.0)) == size + 6
    assert len(lanes.encode_turns(1, [3])) == size + 2
    assert len(lanes.encode_shut(1)) == len(lanes.encode_question(7)) == size


@given(st.binary(max_size=200))
def test_reports_that_are_none(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(lanes.decode_report(data), Report)
