"""The connections between trap handlers: how each side proves that it has the cluster's key, and the frames after that.

What comes first on a connection to a peer port is an opening:

    0        4 bytes   "ASPC"
    4        1 byte    VERSION
    5        1 byte    its kind
    6        2 bytes   the size of the body
    8                  the body
    the end  32 bytes  a MAC (HMAC-SHA256, RFC 2104) of all that, and of the openings that came before

A channel has three. HELLO: a fresh nonce, who opens it, and to whom; its MAC shows the key already, so a stranger gets
no byte. WELCOME: the other side's nonce and name. PROOF: the opener has the key, too, and not just an old HELLO. The
secret of the session comes from all three, so both have seen the same ones: no old one can be replayed, no version
changed under way.

A TCP connection of two apps has one, ARRIVAL, of a fixed size: the number that was announced over a channel, with a MAC
by that session's secret. It is good once; from there on it is the apps' alone. (Connections by a lane begin with an
opening of another kind and size, which only C reads: wire/lanes.py.)

A frame of a channel: the size of the body (4 bytes), the body, 16 bytes of a MAC by the session's secret for this
direction, which covers a counter that isn't sent: what is lost, repeated, changed or put elsewhere doesn't fit.
Nothing is secret: it is no encryption. Integers are big-endian.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from enum import IntEnum
from struct import Struct
from typing import TypeVar

import msgspec
from attrs import frozen

VERSION = 3
MAGIC = b"ASPC"
NONCE_SIZE = 16
MOST_BODY = 1024  # bytes of an opening's
MOST_FRAME = 1 << 24  # bytes of a frame's body: the whole table of a large node is some 2 MB
MOST_ASKED = 1 << 16  # of one that asks

_HEAD = Struct("!4sBBH")
_MAC_SIZE = 32
_SIZE = Struct("!I")
_COUNTER = Struct("!Q")
_FRAME_MAC_SIZE = 16

HEAD_SIZE = _HEAD.size


class PeerError(Exception):
    """What came can't be from a peer; the text says why."""


class Kind(IntEnum):
    """Of an opening."""

    HELLO = 1
    WELCOME = 2
    PROOF = 3
    ARRIVAL = 4


class Hello(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """node: who opens the channel; to: which node it takes the other side for."""

    nonce: bytes
    node: str
    to: str


class Welcome(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """node: who it really is."""

    nonce: bytes
    node: str


Said = TypeVar("Said", Hello, Welcome)

_hello: msgspec.msgpack.Decoder[Hello] = msgspec.msgpack.Decoder(Hello)
_welcome: msgspec.msgpack.Decoder[Welcome] = msgspec.msgpack.Decoder(Welcome)


@frozen
class Session:
    """What both sides of a channel know, and nobody else."""

    secret: bytes

    def key(self, purpose: str) -> bytes:
        """A key for one purpose."""
        return _mac(self.secret, purpose.encode())


def rest_of(head: bytes) -> tuple[Kind, int]:
    """The first HEAD_SIZE bytes of an opening -> its kind and how many bytes follow. PeerError."""
    magic, version, kind, size = _HEAD.unpack(head)
    if magic != MAGIC:
        raise PeerError("it doesn't speak our protocol")
    if version != VERSION:
        raise PeerError(f"it speaks version {version} of the protocol, and we speak {VERSION}")
    if kind not in _KINDS or size > MOST_BODY:
        raise PeerError("it doesn't speak our protocol")
    return Kind(kind), size + _MAC_SIZE


_KINDS = frozenset(Kind)


class Opener:
    """The side that opens a channel from `node` to `to`. nonce: NONCE_SIZE random bytes."""

    def __init__(self, key: bytes, node: str, to: str, nonce: bytes) -> None:
        self._key = key
        self._to = to
        self.hello = _seal(key, Kind.HELLO, msgspec.msgpack.encode(Hello(nonce, node, to)))

    def prove(self, opening: bytes) -> tuple[bytes, Session]:
        """WELCOME -> the PROOF, to be sent, and the session. PeerError."""
        body = _unseal(self._key, Kind.WELCOME, opening, self.hello)
        welcome = _decode(_welcome, body)
        if welcome.node != self._to:
            raise PeerError(f"it is node {welcome.node}")
        proof = _seal(self._key, Kind.PROOF, b"", self.hello + opening)
        return proof, _session(self._key, self.hello + opening + proof)


class Acceptor:
    """The other side, which is `node`."""

    def __init__(self, key: bytes, node: str, nonce: bytes) -> None:
        self._key = key
        self._node = node
        self._nonce = nonce
        self._said = b""

    def welcome(self, opening: bytes) -> tuple[bytes, str]:
        """HELLO -> the WELCOME, to be sent, and the name of who says that it has the key. PeerError."""
        hello = _decode(_hello, _unseal(self._key, Kind.HELLO, opening))
        answer = _seal(self._key, Kind.WELCOME, msgspec.msgpack.encode(Welcome(self._nonce, self._node)), opening)
        self._said = opening + answer
        return answer, hello.node

    def check(self, opening: bytes) -> Session:
        """PROOF -> the session. PeerError: it is none."""
        _unseal(self._key, Kind.PROOF, opening, self._said)
        return _session(self._key, self._said + opening)


def arrival(session: Session, number: int) -> bytes:
    """The preamble of the connection that was announced under this number."""
    return _seal(session.key("arrival"), Kind.ARRIVAL, _COUNTER.pack(number))


def arrival_number(opening: bytes) -> int:
    """Which connection it says that it is. PeerError when it says none."""
    if len(opening) != HEAD_SIZE + _COUNTER.size + _MAC_SIZE:
        raise PeerError("a preamble of the wrong size")
    (number,) = _COUNTER.unpack_from(opening, HEAD_SIZE)
    return int(number)


def check_arrival(session: Session, opening: bytes) -> None:
    """PeerError when the preamble isn't from the session's other side."""
    _unseal(session.key("arrival"), Kind.ARRIVAL, opening)


def asks_key(session: Session) -> bytes:
    """For frames from the opener to the acceptor."""
    return session.key("asks")


def replies_key(session: Session) -> bytes:
    """For those back."""
    return session.key("replies")


class Sealer:
    """Makes frames of one direction, in the order in which they are sent."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._counter = 0

    def seal(self, body: bytes) -> bytes:
        """A frame. PeerError when the body is too large; then it was none."""
        if len(body) > MOST_FRAME:
            raise PeerError(f"a message of {len(body)} bytes is too large")
        frame = _SIZE.pack(len(body)) + body
        self._counter += 1
        return frame + _frame_mac(self._key, self._counter, frame)


class Unsealer:
    """Reads them."""

    def __init__(self, key: bytes, most: int | None = None) -> None:
        """most: bytes of a body; None: MOST_FRAME."""
        self._key = key
        self._most = MOST_FRAME if most is None else most
        self._counter = 0
        self._buffer = bytearray()

    def bodies(self, data: bytes) -> Iterator[bytes]:
        """What is complete with `data`. PeerError: the stream was tampered with, and can't be read any further."""
        self._buffer += data
        while len(self._buffer) >= _SIZE.size:
            (size,) = _SIZE.unpack_from(self._buffer)
            if size > self._most:
                raise PeerError(f"a frame of {size} bytes")
            end = _SIZE.size + size
            if len(self._buffer) < end + _FRAME_MAC_SIZE:
                return
            frame, mac = bytes(self._buffer[:end]), bytes(self._buffer[end : end + _FRAME_MAC_SIZE])
            del self._buffer[: end + _FRAME_MAC_SIZE]
            self._counter += 1
            if not hmac.compare_digest(mac, _frame_mac(self._key, self._counter, frame)):
                raise PeerError("a frame that is not the next one of this session")
            yield frame[_SIZE.size :]


def _session(key: bytes, said: bytes) -> Session:
    return Session(_mac(key, b"session", said))


def _seal(key: bytes, kind: Kind, body: bytes, before: bytes = b"") -> bytes:
    opening = _HEAD.pack(MAGIC, VERSION, kind, len(body)) + body
    return opening + _mac(key, before, opening)


def _unseal(key: bytes, kind: Kind, opening: bytes, before: bytes = b"") -> bytes:
    """The body. PeerError."""
    if len(opening) < HEAD_SIZE:
        raise PeerError("it says too little")
    found, rest = rest_of(opening[:HEAD_SIZE])
    if found != kind or len(opening) != HEAD_SIZE + rest:
        raise PeerError(f"it says something else than {kind.name}")
    if not hmac.compare_digest(opening[-_MAC_SIZE:], _mac(key, before, opening[:-_MAC_SIZE])):
        raise PeerError("it doesn't have the cluster's key")
    return opening[HEAD_SIZE:-_MAC_SIZE]


def _decode(decoder: msgspec.msgpack.Decoder[Said], body: bytes) -> Said:
    try:
        return decoder.decode(body)
    except ValueError as error:  # msgspec's, or text that is no UTF-8
        raise PeerError(f"it can't be read: {error}") from None


def _mac(key: bytes, *parts: bytes) -> bytes:
    return hmac.digest(key, b"".join(parts), "sha256")


def _frame_mac(key: bytes, counter: int, frame: bytes) -> bytes:
    return _mac(key, _COUNTER.pack(counter), frame)[:_FRAME_MAC_SIZE]
