"""The RPC of Serf agents: what one said, what an old one would say, and whatever else comes."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appswitch.wire import serf as wire

BYTES = bytes(range(0x80, 0x90))
HEADER = b"\x82\xa5Error\xb2Handshake required\xa3Seq\t"
MEMBERS = (  # of Serf 0.9.4
    b"\x81\xa7Members\x91\x8b\xa4Addr\xc4\x04\x7f\x00\x01\x01\xabDelegateCur\x05\xabDelegateMax\x05\xabDelegateMin\x02"
    b"\xa4Name\xa3a~1\xa4Port\xcd\x1f\n\xabProtocolCur\x02\xabProtocolMax\x05\xabProtocolMin\x01\xa6Status\xa5alive"
    b"\xa4Tags\x81\xa1c\xa11"
)
NEW_EVENT = b"\x85\xa8Coalesce\xc2\xa5Event\xa4user\xa5LTime\x01\xa4Name\xa1n\xa7Payload\xc4\x10" + BYTES
OLD_EVENT = b"\x85\xa8Coalesce\xc2\xa5Event\xa4user\xa5LTime\x01\xa4Name\xa1n\xa7Payload\xb0" + BYTES
OLD_EVENT_16 = b"\x82\xa5Event\xa4user\xa7Payload\xda\x00\x10" + BYTES

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.binary() | st.text(),
    lambda inside: st.lists(inside, max_size=20) | st.dictionaries(st.text(), inside, max_size=20),
    max_leaves=30,
)


def raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.msgpack.encode(value))


def test_a_request_is_a_header_and_perhaps_a_body() -> None:
    assert list(wire.Objects().feed(wire.request("members", 7))) == [b"\x82\xa7Command\xa7members\xa3Seq\x07"]
    assert len(list(wire.Objects().feed(wire.request("auth", 7, {"AuthKey": "x"})))) == 2


def test_headers() -> None:
    assert wire.decode(HEADER, wire.Header) == wire.Header(9, "Handshake required")


def test_members() -> None:
    (member,) = wire.decode(MEMBERS, wire.Members).members or []
    assert (member.name, member.address, member.port) == ("a~1", ip_address("127.0.1.1"), 7946)
    assert (member.status, member.tags) == ("alive", {"c": "1"})


@pytest.mark.parametrize(
    ("packed", "address"),
    [
        (ip_address("10.0.0.1").packed, "10.0.0.1"),
        (ip_address("::ffff:10.0.0.1").packed, "10.0.0.1"),
        (ip_address("fd00::1").packed, "fd00::1"),
    ],
)
def test_addresses_as_go_writes_them(packed: bytes, address: str) -> None:
    assert wire.AgentMember("n", raw(packed), 1, "alive").address == ip_address(address)


def test_an_address_that_is_none() -> None:
    with pytest.raises(ValueError, match="does not appear to be"):
        _ = wire.AgentMember("n", raw(b"abc"), 1, "alive").address


@pytest.mark.parametrize("data", [NEW_EVENT, OLD_EVENT, OLD_EVENT_16])
def test_bytes_of_old_and_new_agents(data: bytes) -> None:
    assert list(wire.Objects().feed(data)) == [data]
    assert wire.raw_bytes(wire.decode(data, wire.StreamRecord).payload) == BYTES


@pytest.mark.parametrize("size", [0, 1, 31, 32, 255, 256, 65535, 65536])
def test_bytes_of_any_size(size: int) -> None:
    assert wire.raw_bytes(raw(bytes(size))) == bytes(size)
    assert wire.raw_bytes(raw("x" * size)) == b"x" * size


def test_no_bytes() -> None:
    assert wire.raw_bytes(wire.decode(b"\x81\xa5Event\xabmember-join", wire.StreamRecord).payload) == b""
    with pytest.raises(ValueError, match="2a where bytes should be"):
        wire.raw_bytes(raw(42))


@pytest.mark.parametrize("kind", [wire.Header, wire.Members, wire.Joined, wire.Coordinate, wire.StreamRecord])
def test_what_cant_be_read_says_so(kind: type) -> None:
    nested = b"\x81\xa3Any" + b"\x91" * 100_000 + b"\xc0"
    for data in (b"\x93\x01\x02\x03", b"\x81\xa3Seq\xa1x", b"\x81\xa7Members\x91\x01", b"\x81\xa2\xff\xfe\x01", nested):
        with pytest.raises(ValueError, match=f"the Serf agent's {kind.__name__} can't be read"):
            wire.decode(data, kind)


def test_distances() -> None:
    here, there = wire.Vector([0.0, 0.003], height=0.001), wire.Vector([0.004, 0.0], height=0.002)
    assert here.distance(there) == there.distance(here) == pytest.approx(0.008)
    assert here.distance(wire.Vector([0.004, 0.0], adjustment=-0.001)) == pytest.approx(0.005)
    assert here.distance(wire.Vector([0.004, 0.0], adjustment=-1)) == pytest.approx(0.006)  # never less than nothing
    with pytest.raises(ValueError, match="same number of dimensions"):
        here.distance(wire.Vector())


@given(st.lists(values, min_size=1, max_size=5), st.data())
def test_objects_are_cut_wherever_their_pieces_end(sent: list[Any], data: st.DataObject) -> None:
    packed = [msgspec.msgpack.encode(each) for each in sent]
    stream = b"".join(packed)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    objects = wire.Objects()
    got: list[bytes] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += objects.feed(stream[start:end])
    assert got == packed


def cut(pieces: list[bytes]) -> tuple[list[bytes], str]:
    """The objects, and what was wrong then."""
    got: list[bytes] = []
    objects = wire.Objects()
    try:
        for piece in pieces:
            got += objects.feed(piece)  # what comes before an error is kept
    except ValueError as error:
        return got, str(error)
    return got, ""


@given(st.binary())
def test_any_bytes_are_cut_or_refused(data: bytes) -> None:
    at_once, bytewise = cut([data]), cut([data[i : i + 1] for i in range(len(data))])
    assert at_once == bytewise
    assert data.startswith(b"".join(at_once[0]))


@given(st.binary(), st.sampled_from([wire.Header, wire.Members, wire.Joined, wire.Coordinate, wire.StreamRecord]))
def test_any_bytes_are_read_or_refused(data: bytes, kind: type) -> None:
    try:
        wire.decode(data, kind)
    except ValueError as error:
        assert "can't be read" in str(error)  # noqa: PT017 (it needn't be raised)


@pytest.mark.parametrize("first", [b"\xc6\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff", b"\xdf\x7f\xff\xff\xff"])
def test_what_would_take_all_memory_is_refused_at_once(first: bytes) -> None:
    with pytest.raises(ValueError, match="more than 16777216 bytes"):
        list(wire.Objects().feed(first))


def test_what_is_no_object() -> None:
    with pytest.raises(ValueError, match="a byte 0xc1"):
        list(wire.Objects().feed(HEADER + b"\xc1"))
