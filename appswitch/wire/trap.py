"""The trap protocol: frames from the shim to requests, answers to frames (shim/wire.h is the definition)."""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

from attrs import frozen

from appswitch._wire import ffi, lib
from appswitch.model import Address, App, Listener
from appswitch.wire.addresses import pack_ip, unpack_ip

HEADER = ffi.offsetof("struct as_request", "text")
REPLY_HEADER = ffi.offsetof("struct as_reply", "text")
FRAME_SIZE = ffi.sizeof("struct as_request")
TEXT_SIZE = lib.AS_TEXT_SIZE
SNDBUF = lib.AS_SNDBUF
BACKLOG = lib.AS_BACKLOG
MOST_CAPABILITIES = lib.AS_MOST_CAPABILITIES
COUNTERS = lib.AS_COUNTERS
CONNECTED_PORTS = range(lib.AS_UDP_PORTS, 61000)
TOKEN_SIZE = lib.AS_TOKEN_SIZE
NO_TOKEN = bytes(TOKEN_SIZE)

NO_FD, FD_UNIX, FD_TCP, KERNEL = lib.AS_NO_FD, lib.AS_FD_UNIX, lib.AS_FD_TCP, lib.AS_KERNEL
FREE, FD_UDP, HOME, LOST = lib.AS_FREE, lib.AS_FD_UDP, lib.AS_HOME, lib.AS_LOST


class FrameError(Exception):
    """Bytes that are no request: the caller's channel is closed."""


class VersionError(FrameError):
    """A request of another version of the protocol. answer: what its sender understands (shim/wire.h)."""

    def __init__(self, frame: bytes) -> None:
        self.theirs, self.ours = frame[len(_FAMILY) :][:1].decode(errors="replace"), _MAGIC[-1:].decode()
        self.answer = frame[: len(_MAGIC)] + errno.EPROTONOSUPPORT.to_bytes(4, sys.byteorder) + bytes(_REPLY_SIZE - 8)
        super().__init__(f"version {self.theirs} of the trap protocol, and ours is {self.ours}")


_MAGIC = lib.AS_MAGIC.to_bytes(4, sys.byteorder)
_FAMILY = _MAGIC[:-1]
_REPLY_SIZE = ffi.sizeof("struct as_reply")


@frozen
class Bind:
    """family: 4 or 6, of the program's socket; ip: as asked, v4-mapped as IPv4."""

    family: int
    ip: Address
    port: int
    reuse_addr: bool
    reuse_port: bool
    v6only: bool


@frozen
class Listen:
    """listener_id: from the name of the socket."""

    listener_id: int


@frozen
class Connect:
    """bound: the (ip, port) that the program has bound before, if it has; patience: seconds that it waits for room in a
    full queue, 0: as long as we like; the rest: what else it wants.
    """

    family: int
    ip: Address
    port: int
    bound: tuple[Address, int] | None
    nonblocking: bool
    patience: float
    want_capabilities: bool
    want_epoch: bool


@frozen
class Resolve:
    """name: as the program gave it to getaddrinfo. told: it has its answer by DNS already."""

    name: str
    told: bool = False
    want_epoch: bool = False


@frozen
class Reverse:
    """Which name has an address?"""

    ip: Address


@frozen
class OwnIps:
    """Which addresses has the app itself?"""


@frozen
class Register:
    """settings: what is set of the APPSWITCH_ variables that say who a program is (shim/settings.c)."""

    settings: dict[str, str]


@frozen
class Who:
    """Whose is the network namespace `netns` (a cookie), from which a connection came to `listener_id`?"""

    listener_id: int
    netns: int
    want_epoch: bool


@frozen
class NameOf:
    """Which name has the TCP socket with this cookie (SO_COOKIE)?"""

    cookie: int


@frozen
class UdpBind:
    """A UDP socket of the network namespace `netns` is about to be bound. The rest is as in Bind."""

    family: int
    ip: Address
    port: int
    reuse_addr: bool
    reuse_port: bool
    v6only: bool
    netns: int


@frozen
class UdpBound:
    """It has been bound."""

    family: int
    ip: Address
    port: int
    v6only: bool


@frozen
class UdpConnect:
    """A UDP socket of `netns`, whose name is `bound` if it has one, is to be connected to (ip, port)."""

    family: int
    ip: Address
    port: int
    bound: tuple[Address, int] | None
    netns: int
    want_epoch: bool


@frozen
class UdpSend:
    """How does a datagram get from `bound` to (ip, port)? The rest is as in UdpConnect."""

    family: int
    ip: Address
    port: int
    bound: tuple[Address, int]
    netns: int
    want_epoch: bool


UdpRequest = UdpBind | UdpBound | UdpConnect | UdpSend
Request = UdpRequest | NameOf | Reverse | OwnIps | Who | Bind | Listen | Connect | Resolve | Register

# One of each, used again for every frame: decoding and encoding don't wait for anything.
_request = ffi.new("struct as_request *")
_reply = ffi.new("struct as_reply *")
_capabilities = ffi.new("struct as_capabilities *")
_client = ffi.new("struct as_client *")
_path = ffi.new("struct as_path *")
_answer = ffi.new("struct as_answer *")
_NO_ADDRESS = IPv6Address(0)


def decode(frame: bytes) -> tuple[bytes, Request]:
    """A frame -> (token, request). FrameError says what is wrong with it; VersionError before all else."""
    if frame[: len(_MAGIC)] != _MAGIC and frame[: len(_FAMILY)] == _FAMILY and len(frame) >= len(_MAGIC):
        raise VersionError(frame)
    if not HEADER <= len(frame) <= FRAME_SIZE:
        raise FrameError(f"a frame of {len(frame)} bytes")
    ffi.memmove(_request, frame, len(frame))
    if _request.magic != lib.AS_MAGIC:
        raise FrameError(f"magic {_request.magic:#x} instead of {lib.AS_MAGIC:#x}")
    if HEADER + _request.text_size != len(frame):
        raise FrameError(f"a frame of {len(frame)} bytes says that its text has {_request.text_size}")
    return bytes(_request.token), _decode_request(frame[HEADER:])


def _decode_request(text: bytes) -> Request:
    op, flags = _request.op, _request.flags
    if op == lib.AS_CONNECT:
        bound = _address(_request.local) if flags & lib.AS_BOUND else None
        ip, port = _address(_request.remote)
        return Connect(
            _request.remote.family,
            ip,
            port,
            bound,
            nonblocking=bool(flags & lib.AS_NONBLOCK),
            patience=_request.patience / 1000,
            want_capabilities=bool(flags & lib.AS_WANT_CAPABILITIES),
            want_epoch=bool(flags & lib.AS_WANT_EPOCH),
        )
    if op == lib.AS_WHO:
        return Who(_request.id, _request.netns, bool(flags & lib.AS_WANT_EPOCH))
    if op == lib.AS_REVERSE:
        return Reverse(_address(_request.remote)[0])
    if op == lib.AS_OWN_IPS:
        return OwnIps()
    if op == lib.AS_NAME:
        return NameOf(_request.id)
    if op == lib.AS_BIND:
        ip, port = _address(_request.local)
        return Bind(
            _request.local.family,
            ip,
            port,
            reuse_addr=bool(flags & lib.AS_REUSEADDR),
            reuse_port=bool(flags & lib.AS_REUSEPORT),
            v6only=bool(flags & lib.AS_V6ONLY),
        )
    if op == lib.AS_LISTEN:
        return Listen(_request.id)
    if op == lib.AS_RESOLVE:
        return Resolve(_text(text), bool(flags & lib.AS_TOLD), bool(flags & lib.AS_WANT_EPOCH))
    if op == lib.AS_REGISTER:
        entries = [entry.partition("=") for entry in _text(text).split("\0") if entry]
        return Register({name: value for name, _, value in entries})
    if op in _UDP_OPS:
        return _decode_udp(op, flags)
    raise FrameError(f"operation {op} is unknown")


_UDP_OPS = (lib.AS_UDP_BIND, lib.AS_UDP_BOUND, lib.AS_UDP_CONNECT, lib.AS_UDP_SEND)


def _decode_udp(op: int, flags: int) -> UdpRequest:
    local, netns = _address(_request.local), _request.netns
    family, v6only, want_epoch = _request.local.family, bool(flags & lib.AS_V6ONLY), bool(flags & lib.AS_WANT_EPOCH)
    if op == lib.AS_UDP_BIND:
        reuse_addr, reuse_port = bool(flags & lib.AS_REUSEADDR), bool(flags & lib.AS_REUSEPORT)
        return UdpBind(family, *local, reuse_addr=reuse_addr, reuse_port=reuse_port, v6only=v6only, netns=netns)
    if op == lib.AS_UDP_BOUND:
        return UdpBound(family, *local, v6only=v6only)
    remote = _address(_request.remote)
    if op == lib.AS_UDP_CONNECT:
        return UdpConnect(family, *remote, local if flags & lib.AS_BOUND else None, netns, want_epoch)
    return UdpSend(family, *remote, local, netns, want_epoch)


def _address(addr: ffi.CData) -> tuple[Address, int]:
    ip = unpack_ip(bytes(addr.ip))
    if addr.family not in (4, 6) or (addr.family == 4 and not isinstance(ip, IPv4Address)):
        raise FrameError(f"{ip} with family {addr.family}")
    return ip, addr.port


def _text(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise FrameError(f"text is not UTF-8: {error}") from None


def encode_capabilities(
    epoch: int,
    source: Address,
    shares: Sequence[tuple[Listener, int]],
    uses: int,
    has_epoch: bool,
    counters: int = 0,
    slots: Sequence[int] = (),
    links: Sequence[str] = (),
) -> bytes:
    """The text of an answer to Connect: what its further descriptors are. shares: listeners and their weights.

    counters: the number of a page that goes along, 0: none; slots: of the listeners, in it. links: the names of their
    socket files.
    """
    _capabilities.epoch = epoch
    ffi.memmove(_capabilities.source_ip, pack_ip(source), 16)
    _capabilities.has_epoch = has_epoch
    _capabilities.uses = uses
    _capabilities.count = len(shares)
    _capabilities.counters = counters
    _capabilities.slot = [*slots, *[0] * (lib.AS_MOST_CAPABILITIES - len(slots))]
    _capabilities.link = [each.encode() for each in links] + [b""] * (lib.AS_MOST_CAPABILITIES - len(links))
    for index, (listener, weight) in enumerate(shares):
        _capabilities.listener[index] = listener.id
        _capabilities.family[index] = listener.family
        _capabilities.weight[index] = weight
    return bytes(ffi.buffer(_capabilities))


def encode_client(epoch: int, client: App, server: App, *, by_handler: bool, has_epoch: bool) -> bytes:
    """The text of an answer to Who. server: the app that asks."""
    _client.epoch = epoch
    ffi.memmove(_client.ip, pack_ip(client.ip), 16)
    ffi.memmove(_client.alias, pack_ip(client.alias), 16)
    ffi.memmove(_client.server_ip, pack_ip(server.ip), 16)
    ffi.memmove(_client.server_alias, pack_ip(server.alias), 16)
    _client.sibling = client.ip == server.ip
    _client.by_handler = by_handler
    _client.has_epoch = has_epoch
    return bytes(ffi.buffer(_client))


def encode_answer(epoch: int, ip: Address | None, ttl: int, *, has_epoch: bool) -> bytes:
    """The text of an answer to Resolve. ip: None: no app has the name; ttl: seconds."""
    _answer.epoch = epoch
    _answer.ttl = ttl
    _answer.has_epoch = has_epoch
    ffi.memmove(_answer.ip, pack_ip(ip or _NO_ADDRESS), 16)
    _answer.address = str(ip).encode() if ip else b""
    return bytes(ffi.buffer(_answer))


def encode_own_ips(app: App) -> bytes:
    """The text of an answer to OwnIps."""
    return pack_ip(app.source(4)) + pack_ip(app.source(6))


def encode_path(epoch: int, has_epoch: bool, check: tuple[Address, int] | None = None) -> bytes:
    """The text of an answer to UdpConnect and UdpSend. check: the source that a receiver is looked for with."""
    ip, port = check or (_NO_ADDRESS, 0)
    _path.epoch = epoch
    _path.has_epoch = has_epoch
    _path.check = check is not None
    _path.source_port = port
    ffi.memmove(_path.source_ip, pack_ip(ip), 16)
    return bytes(ffi.buffer(_path))


_ERROR_AT = ffi.offsetof("struct as_reply", "error")

CLOSED = b"\0"
"""What follows a reply that `closes`."""


def closes(reply: bytes) -> bytes:
    """The same answer, but saying that CLOSED follows."""
    changed = bytearray(reply)
    at = ffi.offsetof("struct as_reply", "closes")
    changed[at : at + 4] = (1).to_bytes(4, "little")
    return bytes(changed)


def error_of(reply: bytes) -> int:
    """The errno of an answer; 0: done."""
    return int.from_bytes(reply[_ERROR_AT : _ERROR_AT + 4], "little", signed=True)


def encode_reply(error: int = 0, kind: int = NO_FD, token: bytes = NO_TOKEN, text: bytes = b"") -> bytes:
    """An answer. error: an errno, 0 when done; kind: what the descriptor that goes along is."""
    body = text[:TEXT_SIZE]
    _reply.magic = lib.AS_MAGIC
    _reply.error = error
    _reply.kind = kind
    _reply.text_size = len(body)
    ffi.memmove(_reply.token, token, TOKEN_SIZE)
    return bytes(ffi.buffer(_reply, REPLY_HEADER)) + body
