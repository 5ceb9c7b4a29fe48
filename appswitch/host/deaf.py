"""Sockets that hear nothing: a filter drops whatever comes, before the socket sees it (socket(7), SO_ATTACH_FILTER)."""

from __future__ import annotations

import ctypes
import socket
import struct

SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27

# struct sock_filter: BPF_RET | BPF_K, 0 bytes of each packet (linux/filter.h)
_NOTHING_PASSES = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0))


def deafen(made: socket.socket) -> None:
    """It gets nothing."""
    made.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", 1, ctypes.addressof(_NOTHING_PASSES)))


def undeafen(made: socket.socket) -> None:
    """It hears again."""
    made.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
