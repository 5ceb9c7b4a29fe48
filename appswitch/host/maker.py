"""Sockets of an app's namespace for the trap handler: who holds one reaches into the namespace (a socket stays in the
namespace that it was made in, socket(2)).

The trap handler is outside and, unless it is root's, can't come in. So the keeper (host/processes.py), which is inside
as long as the app lives, makes them on demand. One request, a SOCK_SEQPACKET message of three bytes: the address
family, the type and the protocol; one answer: the same bytes and the socket, or an errno of four bytes. The request
RELEASE is answered by itself, once the maker has closed its own descriptors of `lent` (host/keeper.py).
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
from collections.abc import Iterable

REQUEST = 3  # bytes
RELEASE = bytes(REQUEST)
FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)


class Maker:
    """The keeper's end. far_end: for the trap handler; lent: sockets that it has from us, until it releases them."""

    def __init__(self, lent: Iterable[socket.socket] = ()) -> None:
        self.lent = list(lent)
        self._connect()

    def _connect(self) -> None:
        self.far_end, self._near = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._near.setblocking(False)

    def renew(self) -> None:
        """The trap handler has gone; another one gets a far end of its own."""
        self.far_end.close()
        self._near.close()
        self._connect()

    def signal_requests(self) -> None:
        """From now on this process gets SIGIO when there is a request (fcntl(2), O_ASYNC)."""
        fcntl.fcntl(self._near, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(self._near, fcntl.F_SETFL, fcntl.fcntl(self._near, fcntl.F_GETFL) | os.O_ASYNC)

    def serve(self) -> None:
        """Answers until the trap handler has gone."""
        hung_up = select.poll()
        hung_up.register(self._near, select.POLLIN)
        while not any(event & select.POLLHUP for _, event in hung_up.poll()):
            self.answer()

    def answer(self) -> None:
        """Answers what has been asked so far. Never blocks; without a trap handler there is nothing to do."""
        while True:
            try:
                request = self._near.recv(REQUEST)
                if len(request) != REQUEST:
                    return  # the trap handler has gone
                self._answer(request)
            except OSError:
                return

    def _answer(self, request: bytes) -> None:
        if request == RELEASE:
            for each in self.lent:
                each.close()
            self.lent.clear()
            self._near.send(request)
            return
        family, kind, protocol = request
        if family not in FAMILIES:
            self._near.send(errno.EAFNOSUPPORT.to_bytes(4, "little"))
            return
        try:
            made = socket.socket(family, kind, protocol)
        except OSError as error:
            self._near.send((error.errno or errno.EIO).to_bytes(4, "little"))
            return
        with made:
            socket.send_fds(self._near, [request], [made.fileno()])

    def close(self) -> None:
        """Closes what this process has of it: another one makes."""
        for each in (self.far_end, self._near, *self.lent):
            each.close()
