"""Asking the kernel what sockets a network namespace has (sock_diag(7)).

A dump comes in pieces, each of some hundred sockets; after every piece the other tasks have their turn, so that ten
thousand connections hold up nobody.
"""

from __future__ import annotations

import errno
import itertools
import os
import socket
from collections.abc import Callable
from typing import TypeVar

import trio

from appswitch.wire import netlink

ROOM = 65536  # bytes to receive into: the kernel makes its answers no larger (netlink_recvmsg in net/netlink)
PATIENCE = 5.0  # seconds; the kernel answers at once, but a socket that came from elsewhere may be another's, too

Value = TypeVar("Value")
_sequence = itertools.count(1)


class Diag:
    """One netlink socket of a namespace; whoever asks while a dump is under way waits for its end."""

    def __init__(self, netlink_socket: socket.socket) -> None:
        self.socket = netlink_socket
        self._asking = trio.Lock()
        self._used = False

    async def dump(self, request: Callable[[int], bytes], decode: Callable[[bytes], Value | None]) -> list[Value]:
        """What the kernel answers.

        request: makes it from a sequence number; decode: an answer -> a value, None: to be left out, ValueError: not
        to be read. OSError when the kernel refuses, or what answers isn't the kernel.
        """
        async with self._asking:
            # Not to be left half-way: the next dump would be refused while this one is going on.
            with trio.move_on_after(PATIENCE, shield=True):
                try:
                    if not self._used:
                        # The kernel starts with a page, and leaves out what needs more (a listener with a long
                        # queue); with what it has seen that we receive into, it goes on (netlink_dump).
                        self._used = True
                        await self._dump(request, decode)
                    return await self._dump(request, decode)
                except ValueError as error:
                    raise OSError(errno.EPROTO, f"sock_diag: {error}") from None
        raise OSError(errno.ETIMEDOUT, "sock_diag doesn't answer")

    async def _dump(self, request: Callable[[int], bytes], decode: Callable[[bytes], Value | None]) -> list[Value]:
        number = next(_sequence) & 0xFFFFFFFF
        self.socket.send(request(number), socket.MSG_DONTWAIT)
        found: list[Value] = []
        while True:
            await trio.lowlevel.wait_readable(self.socket)
            try:
                datagram = self.socket.recv(ROOM, socket.MSG_DONTWAIT)
            except BlockingIOError:
                continue
            for message in netlink.messages(datagram):
                if message.sequence != number:
                    continue  # of one that was given up
                if message.kind in (netlink.DONE, netlink.ERROR):
                    error = netlink.error_of(message)
                    if error:
                        raise OSError(error, f"sock_diag: {os.strerror(error)}")
                    return found
                value = decode(message.body)
                if value is not None:
                    found.append(value)
