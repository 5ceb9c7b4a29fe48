"""The trap protocol, seen from the server: nothing that a program can send does more than end its channel."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

import pytest
from appswitch._wire import ffi, lib
from hypothesis import example, given
from hypothesis import strategies as st

from appswitch.model import Address, App
from appswitch.wire import trap
from appswitch.wire.addresses import pack_ip, unpack_ip

UDP_OPS = [lib.AS_UDP_BIND, lib.AS_UDP_BOUND, lib.AS_UDP_CONNECT, lib.AS_UDP_SEND]
TCP_OPS = [lib.AS_BIND, lib.AS_LISTEN, lib.AS_CONNECT, lib.AS_NAME, lib.AS_REVERSE, lib.AS_OWN_IPS]
OPS = [*TCP_OPS, lib.AS_RESOLVE, lib.AS_REGISTER, lib.AS_WHO, *UDP_OPS]
PORTS = st.integers(0, 65535)


def frame(op: int, *, text: bytes = b"", text_size: int | None = None, flags: int = 0, **fields: object) -> bytes:
    """What the shim sends. fields: of struct as_request; `local` and `remote` as (family, ip, port)."""
    request = ffi.new("struct as_request *")
    request.magic = lib.AS_MAGIC
    request.op = op
    request.flags = flags
    request.text_size = len(text) if text_size is None else text_size
    for name, value in fields.items():
        if isinstance(value, tuple):
            place = getattr(request, name)
            place.family, place.port = value[0], value[2]
            ffi.memmove(place.ip, pack_ip(value[1]), 16)
        elif isinstance(value, bytes):
            ffi.memmove(getattr(request, name), value, len(value))
        else:
            setattr(request, name, value)
    return bytes(ffi.buffer(request, trap.HEADER)) + text


@given(st.binary(max_size=trap.FRAME_SIZE + 10))
@example(b"")
@example(bytes(trap.FRAME_SIZE))
def test_arbitrary_bytes_are_no_frame(data: bytes) -> None:
    with pytest.raises(trap.FrameError):
        trap.decode(data)


@given(
    st.integers(0, 24) | st.integers(0, 65535), st.binary(max_size=trap.HEADER - 6), st.binary(max_size=trap.TEXT_SIZE)
)
def test_a_right_head_and_anything_after_it(op: int, rest: bytes, text: bytes) -> None:
    """Either it is refused, or what comes out is well-formed."""
    head = bytearray((struct.pack("=IH", lib.AS_MAGIC, op) + rest).ljust(trap.HEADER, b"\0"))
    offset = ffi.offsetof("struct as_request", "text_size")
    head[offset : offset + 2] = struct.pack("=H", len(text))
    try:
        token, request = trap.decode(bytes(head) + text)
    except trap.FrameError as error:
        assert str(error)  # noqa: PT017 - either outcome is fine
        return
    assert len(token) == trap.TOKEN_SIZE
    assert op in OPS
    if isinstance(request, trap.Bind | trap.Connect | trap.UdpRequest):
        assert request.family in (4, 6)
        assert request.family == 6 or request.ip.version == 4
        assert 0 <= request.port < 65536


@given(st.sampled_from([4, 6]), st.ip_addresses(), PORTS, st.lists(st.booleans(), min_size=3, max_size=3))
def test_bind(family: int, ip: Address, port: int, options: list[bool]) -> None:
    each = [lib.AS_REUSEADDR, lib.AS_REUSEPORT, lib.AS_V6ONLY]
    flags = sum(flag for flag, on in zip(each, options, strict=True) if on)
    data = frame(lib.AS_BIND, flags=flags, local=(family, ip, port), token=b"t" * 16)
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    if family == 4 and ip.version == 6:
        with pytest.raises(trap.FrameError):
            trap.decode(data)
    else:
        assert trap.decode(data) == (b"t" * 16, trap.Bind(family, ip, port, *options))


@given(st.ip_addresses(), PORTS, st.none() | st.tuples(st.ip_addresses(), PORTS))
def test_connect(ip: Address, port: int, bound: tuple[Address, int] | None) -> None:
    local = (6, *(bound or (IPv4Address(1), 1)))  # not meant without the flag
    flags = lib.AS_BOUND if bound else 0
    _, request = trap.decode(frame(lib.AS_CONNECT, flags=flags, remote=(6, ip, port), local=local))
    assert isinstance(request, trap.Connect)
    assert pack_ip(request.ip) == pack_ip(ip)
    assert request.port == port
    assert (request.bound is None) == (bound is None)
    if bound and request.bound:
        assert (pack_ip(request.bound[0]), request.bound[1]) == (pack_ip(bound[0]), bound[1])


OWN, DEST = IPv4Address("10.1.1.1"), IPv4Address("10.1.1.2")


def test_udp() -> None:
    def decoded(op: int, flags: int = 0) -> trap.Request:
        return trap.decode(frame(op, flags=flags, local=(4, OWN, 7), remote=(4, DEST, 53), netns=9))[1]

    shared = {"reuse_addr": True, "reuse_port": False, "v6only": True}
    flags = lib.AS_REUSEADDR | lib.AS_V6ONLY
    assert decoded(lib.AS_UDP_BIND, flags) == trap.UdpBind(4, OWN, 7, **shared, netns=9)
    assert decoded(lib.AS_UDP_BOUND) == trap.UdpBound(4, OWN, 7, v6only=False)
    assert decoded(lib.AS_UDP_CONNECT) == trap.UdpConnect(4, DEST, 53, None, 9, want_epoch=False)
    flags = lib.AS_BOUND | lib.AS_WANT_EPOCH
    assert decoded(lib.AS_UDP_CONNECT, flags) == trap.UdpConnect(4, DEST, 53, (OWN, 7), 9, want_epoch=True)
    assert decoded(lib.AS_UDP_SEND, flags) == trap.UdpSend(4, DEST, 53, (OWN, 7), 9, want_epoch=True)


def test_paths() -> None:
    path = ffi.new("struct as_path *")
    ffi.memmove(path, trap.encode_path(7, has_epoch=True, check=(OWN, 9)), ffi.sizeof("struct as_path"))
    assert (path.epoch, path.has_epoch, path.check, path.source_port) == (7, 1, 1, 9)
    assert bytes(path.source_ip) == pack_ip(OWN)
    ffi.memmove(path, trap.encode_path(8, has_epoch=False), ffi.sizeof("struct as_path"))
    assert (path.epoch, path.has_epoch, path.check, path.source_port) == (8, 0, 0, 0)


@pytest.mark.parametrize("family", [0, 2, 5, 10, 255])
def test_families_are_4_and_6(family: int) -> None:
    address = (family, IPv4Address("10.1.1.1"), 80)
    for data in (frame(lib.AS_BIND, local=address), frame(lib.AS_CONNECT, remote=address)):
        with pytest.raises(trap.FrameError):
            trap.decode(data)


def test_listen() -> None:
    assert trap.decode(frame(lib.AS_LISTEN, id=2**63)) == (trap.NO_TOKEN, trap.Listen(2**63))


@given(st.text(max_size=200))
def test_resolve(name: str) -> None:
    assert trap.decode(frame(lib.AS_RESOLVE, text=name.encode())) == (trap.NO_TOKEN, trap.Resolve(name))


def test_register() -> None:
    text = b"APPSWITCH_NAME=web\0APPSWITCH_TAGS=a=b,c=d\0APPSWITCH_IP=\0"
    _, request = trap.decode(frame(lib.AS_REGISTER, text=text))
    assert request == trap.Register({"APPSWITCH_NAME": "web", "APPSWITCH_TAGS": "a=b,c=d", "APPSWITCH_IP": ""})


@pytest.mark.parametrize("op", [lib.AS_RESOLVE, lib.AS_REGISTER])
@given(text=st.binary(max_size=trap.TEXT_SIZE))
def test_texts_are_utf_8(op: int, text: bytes) -> None:
    try:
        text.decode()
    except UnicodeDecodeError:
        with pytest.raises(trap.FrameError):
            trap.decode(frame(op, text=text))
    else:
        trap.decode(frame(op, text=text))


@pytest.mark.parametrize("size", [0, 3, 5, 1024, 65535])
def test_a_text_of_another_size_than_said(size: int) -> None:
    with pytest.raises(trap.FrameError):
        trap.decode(frame(lib.AS_RESOLVE, text=b"name", text_size=size))


def test_another_version_is_told_so() -> None:
    data = frame(lib.AS_LISTEN)
    with pytest.raises(trap.FrameError, match=r"version 2 of the trap protocol"):
        trap.decode(struct.pack("=I", lib.AS_MAGIC + (1 << 24)) + data[4:])


def test_one_frame_leaves_nothing_for_the_next() -> None:
    trap.decode(frame(lib.AS_RESOLVE, text=b"a-long-name", token=b"x" * 16))
    assert trap.decode(frame(lib.AS_RESOLVE, text=b"b")) == (trap.NO_TOKEN, trap.Resolve("b"))


@given(st.integers(0, 4095), st.integers(0, 3), st.binary(min_size=16, max_size=16), st.text(max_size=100))
def test_replies(error: int, kind: int, token: bytes, text: str) -> None:
    reply = ffi.new("struct as_reply *")
    data = trap.encode_reply(error, kind, token, text.encode())
    ffi.memmove(reply, data, len(data))
    assert (reply.magic, reply.error, reply.kind, reply.closes) == (lib.AS_MAGIC, error, kind, 0)
    assert bytes(reply.token) == token
    assert ffi.buffer(reply.text, reply.text_size)[:] == text.encode()
    assert len(data) == trap.REPLY_HEADER + reply.text_size


def test_a_reply_that_says_that_another_message_follows() -> None:
    data = trap.encode_reply(kind=trap.FD_TCP, text=b"text")
    reply = ffi.new("struct as_reply *")
    ffi.memmove(reply, trap.closes(data), len(data))
    assert (reply.closes, reply.kind, reply.text_size) == (1, trap.FD_TCP, 4)


@pytest.mark.parametrize("ip", [IPv4Address("10.0.0.1"), IPv6Address("fd00::1")])
def test_the_addresses_of_the_app_itself(ip: Address) -> None:
    assert trap.decode(frame(lib.AS_OWN_IPS))[1] == trap.OwnIps()
    app = App(1, ip, "n1")
    own = ffi.new("struct as_own_ips *")
    text = trap.encode_own_ips(app)
    assert len(text) == ffi.sizeof("struct as_own_ips")
    ffi.memmove(own, text, len(text))
    assert (unpack_ip(bytes(own.v4)), unpack_ip(bytes(own.v6))) == (app.source(4), app.source(6))


def test_the_name_of_an_address() -> None:
    ip = IPv6Address("fd00::1")
    assert trap.decode(frame(lib.AS_REVERSE, remote=(6, ip, 0)))[1] == trap.Reverse(ip)
    with pytest.raises(trap.FrameError):
        trap.decode(frame(lib.AS_REVERSE, remote=(5, ip, 0)))


def test_the_name_of_a_socket() -> None:
    assert trap.decode(frame(lib.AS_NAME, id=2**40))[1] == trap.NameOf(2**40)


@given(st.text(min_size=300, max_size=3000))
def test_a_reply_is_never_longer_than_the_shims_buffer(text: str) -> None:
    assert len(trap.encode_reply(text=text.encode())) <= ffi.sizeof("struct as_reply")
