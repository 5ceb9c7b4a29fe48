"""What the kernel says of the Unix sockets of a network namespace (sock_diag(7); net/unix/diag.c).

A connection has two sockets. The client's has a client's name and, as its peer, the inode of the other one. That one
has its listener's name, and the client's inode as its peer. Whichever end is closed is gone from the list, and the
other has no peer then, and is shut down. While a connection waits in the queue its server's end isn't listed; the
listener, asked for it, names the inodes of the clients that wait.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from appswitch.wire import netlink

SOCK_DIAG_BY_FAMILY = 20  # the type of the request and of the answers
AF_UNIX, SOCK_STREAM = 1, 1
ESTABLISHED, CLOSE, LISTEN = 1, 7, 10  # states: TCP_... of include/net/tcp_states.h
SHOW_NAME, SHOW_VFS, SHOW_PEER, SHOW_ICONS, SHOW_UID = 0x1, 0x2, 0x4, 0x8, 0x40  # UDIAG_SHOW_...
NAME, VFS, PEER, ICONS, SHUTDOWN, UID = 0, 1, 2, 3, 6, 7  # UNIX_DIAG_...: the attributes
BOTH_WAYS = 3  # RCV_SHUTDOWN | SEND_SHUTDOWN

_REQUEST = struct.Struct("=BBHIIIII")  # struct unix_diag_req
_ANSWER = struct.Struct("=BBBBIII")  # struct unix_diag_msg


class UnixSocket(NamedTuple):
    """One socket.

    name: as sun_path has it; peer: the other end's inode, 0: none, or not accepted yet; file: (device, inode) of the
    socket file that it, or its listener, was bound to, as the kernel has them; waiting: inodes of the clients in a
    listener's queue; uid: who made it; shut: both ways, by either end;
    listens: it takes connections.
    """

    inode: int
    name: bytes
    peer: int
    file: tuple[int, int] | None
    waiting: tuple[int, ...]
    uid: int
    shut: bool
    listens: bool = False


def connected_sockets(sequence: int) -> bytes:
    """The request for all that are connected."""
    return _request(sequence, (ESTABLISHED,), SHOW_NAME | SHOW_VFS | SHOW_PEER | SHOW_UID)


def listening_sockets(sequence: int) -> bytes:
    """The request for all that listen, with their queues."""
    return _request(sequence, (LISTEN,), SHOW_NAME | SHOW_VFS | SHOW_ICONS | SHOW_UID)


def bound_sockets(sequence: int) -> bytes:
    """The request for all that aren't connected."""
    return _request(sequence, (CLOSE, LISTEN), SHOW_NAME | SHOW_VFS | SHOW_UID)


def _request(sequence: int, states: Iterable[int], show: int) -> bytes:
    body = _REQUEST.pack(AF_UNIX, 0, 0, sum(1 << state for state in states), 0, show, 0xFFFFFFFF, 0xFFFFFFFF)
    return netlink.dump_request(SOCK_DIAG_BY_FAMILY, sequence, body)


def decode(body: bytes) -> UnixSocket | None:
    """One answer; None for a socket without a name, or that is no stream. ValueError when it is cut."""
    if len(body) < _ANSWER.size:
        raise ValueError(f"an answer of {len(body)} bytes")
    _, kind, state, _, inode, _, _ = _ANSWER.unpack_from(body)
    found = netlink.attributes(body, _ANSWER.size)
    name = found.get(NAME)
    if kind != SOCK_STREAM or name is None:
        return None
    file, waiting = found.get(VFS, b""), found.get(ICONS, b"")
    return UnixSocket(
        inode,
        name,
        int.from_bytes(found.get(PEER, b""), "little"),
        (int.from_bytes(file[4:], "little"), int.from_bytes(file[:4], "little")) if file else None,
        struct.unpack_from(f"={len(waiting) // 4}I", waiting),
        int.from_bytes(found.get(UID, b""), "little"),
        found.get(SHUTDOWN) == bytes([BOTH_WAYS]),
        state == LISTEN,
    )
