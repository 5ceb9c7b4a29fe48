"""Sockets that hear nothing: a filter drops whatever comes, before the socket sees it (socket(7), SO_ATTACH_FILTER)."""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Sequence

SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27

Instruction = tuple[int, int, int, int]
"""struct sock_filter (linux/filter.h): code, jt, jf, k."""

RETURN = 0x06  # BPF_RET | BPF_K: so many bytes of each packet pass


def deafen(made: socket.socket) -> None:
    """It gets nothing."""
    attach_filter(made, [(RETURN, 0, 0, 0)])


def undeafen(made: socket.socket) -> None:
    """It hears again."""
    made.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)


def attach_filter(made: socket.socket, program: Sequence[Instruction]) -> None:
    """What it gets passes this first. OSError."""
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *each) for each in program))
    made.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", len(program), ctypes.addressof(code)))
