"""The proof of the key and the frames: what is changed, repeated, cut or moved is never taken for the peer's."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from attrs import evolve, frozen
from hypothesis import given
from hypothesis import strategies as st

from appswitch.wire import peer_channel as pc
from appswitch.wire.peer_channel import Acceptor, Kind, Opener, PeerError, Sealer, Session, Unsealer

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
NONCES = st.binary(min_size=pc.NONCE_SIZE, max_size=pc.NONCE_SIZE)
BODIES = st.lists(st.binary(max_size=50), min_size=1, max_size=8)
SESSION = Session(b"s" * 32)


@frozen
class Talk:
    """What is said on a channel that opens."""

    hello: bytes
    welcome: bytes
    proof: bytes
    sessions: tuple[Session, Session]


def talk(key: bytes = KEY, nonces: tuple[bytes, bytes] = (b"a" * 16, b"b" * 16)) -> Talk:
    opener, acceptor = Opener(key, "a", "b", nonces[0]), Acceptor(key, "b", nonces[1])
    welcome, node = acceptor.welcome(opener.hello)
    assert node == "a"
    proof, session = opener.prove(welcome)
    return Talk(opener.hello, welcome, proof, (session, acceptor.check(proof)))


def flip(data: bytes, bit: int) -> bytes:
    at = bit % (len(data) * 8)
    changed = bytearray(data)
    changed[at // 8] ^= 1 << at % 8
    return bytes(changed)


# --- the proof


@given(st.binary(max_size=64), st.tuples(NONCES, NONCES))
def test_both_sides_get_the_same_session(key: bytes, nonces: tuple[bytes, bytes]) -> None:
    said = talk(key, nonces)
    assert said.sessions[0] == said.sessions[1]


@given(st.tuples(NONCES, NONCES), st.tuples(NONCES, NONCES))
def test_no_two_sessions_are_the_same(one: tuple[bytes, bytes], other: tuple[bytes, bytes]) -> None:
    assert (talk(nonces=one).sessions == talk(nonces=other).sessions) == (one == other)


@pytest.mark.parametrize("opener_has", [OTHER_KEY, b""])
def test_another_key(opener_has: bytes) -> None:
    with pytest.raises(PeerError, match="key"):
        Acceptor(KEY, "b", b"b" * 16).welcome(Opener(opener_has, "a", "b", b"a" * 16).hello)


def test_a_host_without_the_key_cannot_pose_as_a_node() -> None:
    opener, robber = Opener(KEY, "a", "b", b"a" * 16), Acceptor(OTHER_KEY, "b", b"b" * 16)
    robber_hello = Opener(OTHER_KEY, "a", "b", b"a" * 16).hello
    with pytest.raises(PeerError, match="key"):
        opener.prove(robber.welcome(robber_hello)[0])


def test_another_node_at_the_address() -> None:
    opener = Opener(KEY, "a", "b", b"a" * 16)
    welcome, _ = Acceptor(KEY, "c", b"b" * 16).welcome(opener.hello)
    with pytest.raises(PeerError, match="it is node c"):
        opener.prove(welcome)


@given(st.integers(0, 10**6))
def test_a_changed_bit_anywhere_is_noticed(bit: int) -> None:
    said = talk()
    opener, acceptor = Opener(KEY, "a", "b", b"a" * 16), Acceptor(KEY, "b", b"b" * 16)
    with pytest.raises(PeerError):
        acceptor.welcome(flip(said.hello, bit))
    acceptor.welcome(said.hello)
    with pytest.raises(PeerError):
        opener.prove(flip(said.welcome, bit))
    with pytest.raises(PeerError):
        acceptor.check(flip(said.proof, bit))


@given(st.integers(0, 10**6))
def test_what_is_cut_is_noticed(size: int) -> None:
    said = talk()
    opener, acceptor = Opener(KEY, "a", "b", b"a" * 16), Acceptor(KEY, "b", b"b" * 16)
    with pytest.raises(PeerError):
        acceptor.welcome(said.hello[: size % len(said.hello)])
    acceptor.welcome(said.hello)
    with pytest.raises(PeerError):
        opener.prove(said.welcome[: size % len(said.welcome)])
    with pytest.raises(PeerError):
        acceptor.check(said.proof[: size % len(said.proof)])


@given(st.binary(max_size=100))
def test_garbage(data: bytes) -> None:
    with pytest.raises(PeerError):
        Acceptor(KEY, "b", b"b" * 16).welcome(data)
    with pytest.raises(PeerError):
        Opener(KEY, "a", "b", b"a" * 16).prove(data)


def test_an_old_channel_said_again() -> None:
    old = talk()
    acceptor = Acceptor(KEY, "b", b"B" * 16)
    acceptor.welcome(old.hello)
    with pytest.raises(PeerError):
        acceptor.check(old.proof)
    with pytest.raises(PeerError):
        Opener(KEY, "a", "b", b"A" * 16).prove(old.welcome)


def test_a_side_cannot_be_answered_with_its_own_words() -> None:
    opener = Opener(KEY, "a", "a", b"a" * 16)
    with pytest.raises(PeerError):
        opener.prove(opener.hello)
    acceptor = Acceptor(KEY, "a", b"b" * 16)
    welcome, _ = acceptor.welcome(opener.hello)
    with pytest.raises(PeerError):
        acceptor.check(welcome)


@pytest.mark.parametrize("version", [0, pc.VERSION + 1])
def test_another_version_is_named_and_cannot_be_put_in(version: int) -> None:
    hello = talk().hello
    changed = hello[:4] + bytes([version]) + hello[5:]
    with pytest.raises(PeerError, match=f"version {version}"):
        Acceptor(KEY, "b", b"b" * 16).welcome(changed)


def test_the_version_is_covered_by_the_mac(monkeypatch: pytest.MonkeyPatch) -> None:
    hello = talk().hello
    monkeypatch.setattr(pc, "VERSION", pc.VERSION + 1)
    with pytest.raises(PeerError, match="key"):
        Acceptor(KEY, "b", b"b" * 16).welcome(hello[:4] + bytes([pc.VERSION]) + hello[5:])


def test_sizes_are_bounded_before_anything_is_read() -> None:
    with pytest.raises(PeerError):
        pc.rest_of(b"ASPC" + bytes([pc.VERSION, Kind.HELLO]) + (pc.MOST_BODY + 1).to_bytes(2))


# --- preambles


@given(st.integers(0, 2**64 - 1))
def test_a_preamble(number: int) -> None:
    preamble = pc.arrival(SESSION, number)
    kind, rest = pc.rest_of(preamble[: pc.HEAD_SIZE])
    assert (kind, rest) == (Kind.ARRIVAL, len(preamble) - pc.HEAD_SIZE)
    assert pc.arrival_number(preamble) == number
    pc.check_arrival(SESSION, preamble)


@given(st.integers(0, 10**6))
def test_a_preamble_that_was_changed(bit: int) -> None:
    with pytest.raises(PeerError):
        pc.check_arrival(SESSION, flip(pc.arrival(SESSION, 7), bit))


def test_a_preamble_of_another_session() -> None:
    with pytest.raises(PeerError, match="key"):
        pc.check_arrival(Session(b"t" * 32), pc.arrival(SESSION, 7))


@given(st.binary(max_size=100))
def test_a_preamble_of_another_size(data: bytes) -> None:
    if len(data) != len(pc.arrival(SESSION, 7)):
        with pytest.raises(PeerError):
            pc.arrival_number(data)


# --- frames


def frames(bodies: list[bytes], session: Session = SESSION) -> list[bytes]:
    sealer = Sealer(pc.asks_key(session))
    return [sealer.seal(body) for body in bodies]


def read(data: bytes, key: bytes = pc.asks_key(SESSION)) -> list[bytes]:
    return list(Unsealer(key).bodies(data))


@given(BODIES, st.lists(st.integers(0, 1000)))
def test_frames_come_out_as_they_went_in_however_they_are_cut(bodies: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(frames(bodies))
    at = sorted({0, *(cut % len(stream) for cut in cuts), len(stream)})
    unsealer = Unsealer(pc.asks_key(SESSION))
    assert [body for start, end in itertools.pairwise(at) for body in unsealer.bodies(stream[start:end])] == bodies


@given(BODIES, st.integers(0, 10**6))
def test_a_stream_that_ends_early_gives_what_was_whole(bodies: list[bytes], size: int) -> None:
    stream = b"".join(frames(bodies))
    found = read(stream[: size % len(stream)])
    assert found == bodies[: len(found)]
    assert len(found) < len(bodies)


@given(BODIES, st.integers(0, 10**6))
def test_nothing_after_a_changed_bit_is_taken(bodies: list[bytes], bit: int) -> None:
    stream = b"".join(frames(bodies))
    at, ends = bit % (len(stream) * 8) // 8, [len(b"".join(frames(bodies[: n + 1]))) for n in range(len(bodies))]
    whole = sum(end <= at for end in ends)
    unsealer = Unsealer(pc.asks_key(SESSION))
    found: list[bytes] = []
    with contextlib.suppress(PeerError):
        found.extend(unsealer.bodies(flip(stream, bit)))
    assert found[:whole] == bodies[: len(found[:whole])]
    assert len(found) <= whole


@given(BODIES, st.data())
def test_frames_that_are_repeated_left_out_or_moved(bodies: list[bytes], data: st.DataObject) -> None:
    made = frames(bodies)
    order = data.draw(st.lists(st.integers(0, len(made) - 1), max_size=10))
    right = 0
    while right < len(order) and order[right] == right:
        right += 1
    unsealer = Unsealer(pc.asks_key(SESSION))
    found: list[bytes] = []
    try:
        for each in order:
            found.extend(unsealer.bodies(made[each]))
    except PeerError:
        assert right < len(order)
    else:
        assert right == len(order)
    assert found == bodies[:right]


@given(st.binary(min_size=4, max_size=100))
def test_garbage_is_no_frame(data: bytes) -> None:
    with contextlib.suppress(PeerError):
        assert read(data) == []


def test_the_directions_are_told_apart() -> None:
    with pytest.raises(PeerError):
        read(frames([b"x"])[0], pc.replies_key(SESSION))


def test_frames_of_another_session() -> None:
    with pytest.raises(PeerError):
        read(frames([b"x"], evolve(SESSION, secret=b"t" * 32))[0])


def test_a_frame_that_is_too_large_is_neither_made_nor_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pc, "MOST_FRAME", 10)
    sealer = Sealer(pc.asks_key(SESSION))
    with pytest.raises(PeerError, match="too large"):
        sealer.seal(b"x" * 11)
    assert read(sealer.seal(b"x" * 10)) == [b"x" * 10], "the next one is the first"
    with pytest.raises(PeerError):
        read((11).to_bytes(4))


def test_a_name_that_is_no_text() -> None:
    """Of one that has the key: it is turned away like any other."""
    hello = pc._seal(KEY, Kind.HELLO, b"\x93\xc4\x01n\xa1\xff\xa1b")
    with pytest.raises(PeerError):
        Acceptor(KEY, "b", b"b" * 16).welcome(hello)
