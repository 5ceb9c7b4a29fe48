"""The names of Unix sockets that stand for TCP addresses (DESIGN 3.1; shim/wire.h, shim/names.c)."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from appswitch._wire import ffi, lib
from appswitch.model import Address, App, Listener
from appswitch.wire.addresses import pack_ip, unpack_ip


class Medium(Enum):
    """What carries a connection, and which end's name it is (enum as_medium)."""

    UNIX = lib.AS_UNIX
    TCP_CLIENT = lib.AS_TCP_CLIENT
    TCP_SERVER = lib.AS_TCP_SERVER


_client = ffi.new("struct as_client_name *")
_client.tag = list(b"asc")
_listener = ffi.new("struct as_listener_name *")


_PREFIX = "as."


class ListenerName(NamedTuple):
    """What the path of a listener's socket says: which one, and whose (the id of an app); the rest as model.Listener
    has it.
    """

    salt: int
    listener_id: int
    app_id: int
    ip: Address
    port: int
    family: int
    v6only: bool
    reuse_addr: bool
    reuse_port: bool

    def of(self, app: App, listening: bool) -> Listener:
        """The listener; app: the one with the id."""
        return Listener(
            self.listener_id, app, self.family, self.ip, self.port, self.v6only, self.reuse_addr, self.reuse_port,
            listening,
        )  # fmt: skip


class ClientName(NamedTuple):
    """What the name of a client's socket says. app_id: 0 where the network namespace tells who calls."""

    salt: int
    app_id: int
    source: tuple[Address, int]
    dest: tuple[Address, int]


def listener_file(salt: int, listener: Listener) -> str:
    """The file name of a listener's socket: the last part of its path."""
    ffi.memmove(_listener.ip, pack_ip(listener.ip), 16)
    _listener.id = listener.id
    _listener.port = listener.port
    _listener.family = listener.family
    _listener.v6only = listener.v6only
    _listener.app = listener.app.id
    _listener.salt = salt
    _listener.flags = lib.AS_REUSEADDR * listener.reuse_addr | lib.AS_REUSEPORT * listener.reuse_port
    return _PREFIX + bytes(ffi.buffer(_listener)).hex()


def read_listener_path(path: bytes) -> ListenerName | None:
    """The path of a listener's socket -> what it says; None for any other path."""
    _, separator, file = path.rstrip(b"\0").rpartition(b"/" + _PREFIX.encode())
    try:
        packed = bytes.fromhex(file.decode())
    except ValueError:
        return None
    if not separator or len(packed) != ffi.sizeof(_listener[0]):
        return None
    name = ffi.from_buffer("struct as_listener_name *", packed)
    return ListenerName(
        name.salt, name.id, name.app, unpack_ip(bytes(name.ip)), name.port, name.family, bool(name.v6only),
        bool(name.flags & lib.AS_REUSEADDR), bool(name.flags & lib.AS_REUSEPORT),
    )  # fmt: skip


def client_name(
    salt: int,
    source: tuple[Address, int],
    dest: tuple[Address, int],
    client_family: int,
    server_family: int,
    app_id: int,
    medium: Medium = Medium.UNIX,
) -> bytes:
    """The abstract name of a client's socket. dest: as the client asked for it; families: 4 or 6, of the sockets."""
    _client.medium = medium.value
    _client.salt = salt
    _client.app = app_id
    ffi.memmove(_client.source_ip, pack_ip(source[0]), 16)
    ffi.memmove(_client.dest_ip, pack_ip(dest[0]), 16)
    _client.source_port = source[1]
    _client.dest_port = dest[1]
    _client.client_family = client_family
    _client.server_family = server_family
    return bytes(ffi.buffer(_client))


def read_client_name(name: bytes) -> ClientName | None:
    """The name of a client's socket -> what it says; None for any other name."""
    if len(name) != ffi.sizeof(_client[0]) or not name.startswith(b"\0asc"):
        return None
    read = ffi.from_buffer("struct as_client_name *", name)
    source = unpack_ip(bytes(read.source_ip)), read.source_port
    return ClientName(read.salt, read.app, source, (unpack_ip(bytes(read.dest_ip)), read.dest_port))


def read_medium(name: bytes) -> Medium:
    """Of a client's name."""
    return Medium(ffi.from_buffer("struct as_client_name *", name).medium)


def with_medium(name: bytes, medium: Medium) -> bytes:
    """The same client's name but for the medium."""
    changed = bytearray(name)
    ffi.from_buffer("struct as_client_name *", changed).medium = medium.value
    return bytes(changed)
