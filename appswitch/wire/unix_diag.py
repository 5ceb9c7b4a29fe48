"""What the kernel says of the Unix sockets of a network namespace (sock_diag(7); net/unix/diag.c).

A connection has two sockets. The client's has a client's name and, as its peer, the inode of the other one. That one
has its listener's name, and the client's inode as its peer; while it waits in the queue it has no inode of its own
yet. Whichever end is closed is gone from the list, and the other has no peer then.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from appswitch.wire import netlink

SOCK_DIAG_BY_FAMILY = 20  # the type of the request and of the answers
AF_UNIX, SOCK_STREAM = 1, 1
ESTABLISHED = 1  # TCP_ESTABLISHED of linux/net/tcp_states.h; Unix sockets use it, too
SHOW_NAME, SHOW_VFS, SHOW_PEER = 0x1, 0x2, 0x4  # UDIAG_SHOW_...
NAME, VFS, PEER = 0, 1, 2  # UNIX_DIAG_...: the attributes

_REQUEST = struct.Struct("=BBHIIIII")  # struct unix_diag_req
_ANSWER = struct.Struct("=BBBBIII")  # struct unix_diag_msg
_VFS = struct.Struct("=II")  # struct unix_diag_vfs


class UnixSocket(NamedTuple):
    """name: as sun_path has it; inode: 0: not accepted yet; peer: the other end's inode, 0: none, or as above;
    file: (device, inode) of the socket file that it was bound to, or that its listener was.
    """

    inode: int
    name: bytes
    peer: int
    file: tuple[int, int] | None


def connected_sockets(sequence: int) -> bytes:
    """The request for all that are connected."""
    show = SHOW_NAME | SHOW_VFS | SHOW_PEER
    body = _REQUEST.pack(AF_UNIX, 0, 0, 1 << ESTABLISHED, 0, show, 0xFFFFFFFF, 0xFFFFFFFF)
    return netlink.dump_request(SOCK_DIAG_BY_FAMILY, sequence, body)


def decode(body: bytes) -> UnixSocket | None:
    """One answer; None for a socket without a name, or that is no stream. ValueError when it is cut."""
    if len(body) < _ANSWER.size:
        raise ValueError(f"an answer of {len(body)} bytes")
    _, kind, _, _, inode, _, _ = _ANSWER.unpack_from(body)
    found = netlink.attributes(body, _ANSWER.size)
    name = found.get(NAME)
    if kind != SOCK_STREAM or name is None:
        return None
    file = found.get(VFS)
    return UnixSocket(
        inode,
        name,
        int.from_bytes(found.get(PEER, b""), "little"),
        None if file is None else _device_and_inode(*_VFS.unpack(file)),
    )


def _device_and_inode(inode: int, device: int) -> tuple[int, int]:
    """The kernel's own dev_t (12 bits and 20, linux/kdev_t.h) as stat(2) has it (st_dev); inodes are cut to 32 bits."""
    major, minor = device >> 20, device & 0xFFFFF
    return minor & 0xFF | major << 8 | (minor & 0xFFF00) << 12, inode
