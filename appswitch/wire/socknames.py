"""The names of Unix sockets that stand for TCP addresses (DESIGN 3.1; shim/wire.h, shim/names.c)."""

from __future__ import annotations

from appswitch._wire import ffi
from appswitch.model import Address
from appswitch.wire.addresses import pack_ip

_client = ffi.new("struct as_client_name *")
_client.tag = list(b"asc")
_listener = ffi.new("struct as_listener_name *")


def listener_file(listener_id: int, family: int, ip: Address, port: int, v6only: bool) -> str:
    """The file name of a listener's socket: the last part of its path."""
    ffi.memmove(_listener.ip, pack_ip(ip), 16)
    _listener.id = listener_id
    _listener.port = port
    _listener.family = family
    _listener.v6only = v6only
    return "as." + bytes(ffi.buffer(_listener)).hex()


def client_name(
    salt: int, source: tuple[Address, int], dest: tuple[Address, int], client_family: int, server_family: int
) -> bytes:
    """The abstract name of a client's socket. dest: as the client asked for it; families: 4 or 6, of the sockets."""
    _client.salt = salt
    ffi.memmove(_client.source_ip, pack_ip(source[0]), 16)
    ffi.memmove(_client.dest_ip, pack_ip(dest[0]), 16)
    _client.source_port = source[1]
    _client.dest_port = dest[1]
    _client.client_family = client_family
    _client.server_family = server_family
    return bytes(ffi.buffer(_client))
