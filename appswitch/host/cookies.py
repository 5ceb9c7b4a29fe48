"""The kernel's names for sockets and network namespaces: never used again, the same whoever asks (socket(7))."""

from __future__ import annotations

import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class AnySocket(Protocol):
        """A socket of the standard library, or trio's."""

        def getsockopt(self, level: int, option: int, size: int, /) -> bytes:
            """As socket.socket has it."""


SO_COOKIE, SO_NETNS_COOKIE = 57, 71  # linux/socket.h; the socket module has no names for these


def cookie_of(any_socket: AnySocket) -> int:
    """What identifies a socket over dup, fork, exec and SCM_RIGHTS. OSError when it is none."""
    return int.from_bytes(any_socket.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8), "little")


def netns_of(any_socket: AnySocket) -> int:
    """The cookie of the network namespace that a socket belongs to (Linux 5.14). OSError on an older kernel."""
    return int.from_bytes(any_socket.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8), "little")
