"""Unix sockets that bear a client's name, and connecting them to a listener of this host (wire/socknames.py).

The name is where a client comes from and goes to. The kernel sees to it that no two are the same in one namespace: ours
are in the host's, with even ports; those that a shim binds when it connects by capability are in the app's, with odd
ones (shim/capability.c).
"""

from __future__ import annotations

import errno
import itertools
import random
import socket
from collections.abc import Callable, Iterator

import trio

from appswitch.core.route import EPHEMERAL
from appswitch.edge.dial import Asked
from appswitch.edge.listeners import ListenerSockets
from appswitch.model import Address, Listener
from appswitch.wire import socknames
from appswitch.wire.socknames import Medium
from appswitch.wire.trap import SNDBUF

OUR_PORTS = EPHEMERAL[::2]

AT_ONCE = 64  # ports that are tried in one go

SO_SNDBUFFORCE = 32

Pair = tuple[Address, int]


class NamedSockets:
    """Makes them. Keeps the sequence of client ports."""

    def __init__(
        self,
        sockets: ListenerSockets,
        gone: Callable[[Listener], None],
        rng: random.Random,
        is_taken: Callable[[Pair, Pair], bool] = lambda _source, _dest: False,
    ) -> None:
        """gone: called with a listener that turns out to be closed; is_taken: whether a TCP connection has the ends."""
        self._sockets = sockets
        self._is_taken = is_taken
        self._gone = gone
        self._ports = itertools.cycle(OUR_PORTS)
        for _ in range(rng.randrange(len(OUR_PORTS))):
            next(self._ports)

    def sources(self, source: Pair, asked: Asked) -> Iterator[Pair]:
        """Ends that the connection may have: `source` itself, or where it has no port, one port after another; those
        left out that a TCP connection has. That a client from outside has its own its kernel and ours have seen to.
        """
        ip, port = source
        for _ in range(1 if port else len(OUR_PORTS)):
            end = ip, port or next(self._ports)
            if asked.app is None or not self._is_taken(end, asked.dest):
                yield end

    async def make(self, source: Pair, asked: Asked, server_family: int, medium: Medium) -> socket.socket:
        """A non-blocking one that comes from `source`, from any port when that is 0. OSError EADDRNOTAVAIL."""
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            raise_sndbuf(made)
            for count, end in enumerate(self.sources(source, asked), 1):
                if self._bind(made, self.name(end, asked, server_family, medium)):
                    return made
                if count % AT_ONCE == 0:
                    await trio.lowlevel.checkpoint()  # long searches are others' turn, too
            raise no_port(source)
        except BaseException:
            made.close()
            raise

    def name(self, source: Pair, asked: Asked, server_family: int, medium: Medium) -> bytes:
        """As the kernel has it."""
        families = asked.family, server_family
        app_id = asked.app.id if asked.app else 0
        return socknames.client_name(self._sockets.salt, source, asked.dest, *families, app_id, medium)

    def _bind(self, made: socket.socket, name: bytes) -> bool:
        """False when it is in use."""
        try:
            made.bind(name)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return False
        return True

    def connect(self, named: socket.socket, listener: Listener) -> None:
        """ConnectionRefusedError: the listener doesn't take it, or has gone; BlockingIOError: its queue is full."""
        try:
            named.connect(self._sockets.path(listener.id))
        except KeyError:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "the listener has gone") from None
        except ConnectionRefusedError:
            self.check(listener)
            raise

    @property
    def salt(self) -> int:
        """In our sockets' names."""
        return self._sockets.salt

    def handle(self, listener: Listener) -> int:
        """As of ListenerSockets."""
        return self._sockets.handle(listener.id)

    def check(self, listener: Listener) -> None:
        """ConnectionRefusedError when it has gone."""
        try:
            alive = self._sockets.alive(listener.id)
        except KeyError:
            alive = False
        else:
            if not alive:
                self._gone(listener)
        if not alive:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "the listener has gone")


def no_port(source: Pair) -> OSError:
    """None of `sources` can be had."""
    return OSError(errno.EADDRNOTAVAIL, "the client's port is in use to there" if source[1] else "no port is free")


def raise_sndbuf(end: socket.socket) -> None:
    """A Unix socket charges each small write some 700 bytes: with the default a pipelining client soon blocks."""
    try:
        end.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, SNDBUF)
    except PermissionError:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SNDBUF)
