"""The names of TCP connections' ends: what getsockname and getpeername are to say of sockets that have other addresses.

The shim is told the name with the socket; a program that got the socket from another one asks by its cookie (SO_COOKIE),
which stays the same over fork, exec and SCM_RIGHTS. Names are kept as long as the sockets live: the kernel is asked at
intervals which ones do (wire/tcp_diag.py), in each namespace that we make such sockets in.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

import structlog
import trio
from attrs import frozen

from appswitch.edge.diag import Diag
from appswitch.model import Address, App, Listener
from appswitch.wire import socknames, tcp_diag
from appswitch.wire.tcp_diag import TcpSocket

SWEEP_EVERY = 5.0  # seconds

Ends = tuple[tuple[Address, int], tuple[Address, int]]

log = structlog.get_logger()


def cookie_of(end: socket.socket) -> int:
    """SO_COOKIE (socket(7))."""
    return int.from_bytes(end.getsockopt(socket.SOL_SOCKET, 57, 8), "little")


@frozen
class Name:
    """Of a connection. packed: struct as_client_name; client, listener: who may ask for it."""

    packed: bytes
    client: App
    listener: Listener

    @property
    def ends(self) -> Ends:
        """(source, dest)."""
        read = socknames.read_client_name(self.packed)
        assert read is not None
        return read.source, read.dest


class TcpNames:
    """By cookie. diags: of the namespaces that the sockets are in."""

    def __init__(self) -> None:
        self.diags: list[Diag] = []
        self._clients: dict[int, Name] = {}
        self._servers: dict[int, Name] = {}
        self._ends: dict[Ends, int] = {}
        """How many sockets have them."""

    def add_client(self, cookie: int, name: Name) -> None:
        """The client's end has the cookie."""
        self._add(self._clients, cookie, name)

    def add_server(self, cookie: int, name: Name) -> None:
        """The server's end has the cookie."""
        self._add(self._servers, cookie, name)

    def _add(self, side: dict[int, Name], cookie: int, name: Name) -> None:
        side[cookie] = name
        self._ends[name.ends] = self._ends.get(name.ends, 0) + 1

    def find(self, cookie: int, app: App) -> bytes | None:
        """What `app`, which has the socket, is to see; None: it isn't one of ours, or none of its connections."""
        for side, medium in ((self._clients, socknames.TCP_CLIENT), (self._servers, socknames.TCP_SERVER)):
            name = side.get(cookie)
            if name is not None and app.id in (name.client.id, name.listener.app.id):
                return socknames.with_medium(name.packed, medium)
        return None

    def is_taken(self, source: tuple[Address, int], dest: tuple[Address, int]) -> bool:
        """Whether a connection has these two ends."""
        return (source, dest) in self._ends

    def __len__(self) -> int:
        return len(self._clients) + len(self._servers)

    async def keep_swept(self) -> None:
        """Forgets closed sockets, for ever."""
        while True:
            await trio.sleep(SWEEP_EVERY)
            if len(self):
                await self.sweep()

    async def sweep(self) -> None:
        """Forgets closed sockets."""
        sides = (self._clients, self._servers)
        known = [list(side) for side in sides]  # one that is made meanwhile may not be among those that are found
        try:
            live = {each.cookie for each in await self._sockets()}
        except OSError as error:
            log.warning("TCP sockets can't be listed", error=error.strerror)
            return
        for side, cookies in zip(sides, known, strict=True):
            for cookie in cookies:
                if cookie not in live:
                    self._forget(side.pop(cookie))

    def _forget(self, name: Name) -> None:
        self._ends[name.ends] -= 1
        if not self._ends[name.ends]:
            del self._ends[name.ends]

    async def _sockets(self) -> list[TcpSocket]:
        found: list[TcpSocket] = []
        for diag in self.diags:
            for family in (socket.AF_INET, socket.AF_INET6):
                found += await diag.dump(_request(family), tcp_diag.decode)
        return [each for each in found if each.inode]
