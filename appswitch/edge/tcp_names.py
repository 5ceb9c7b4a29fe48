"""The names of TCP connections' ends: what getsockname and getpeername are to say of sockets that have other addresses.

The shim is told the name with the socket; a program that got the socket from another one asks by its cookie, which is
the same after fork, exec and SCM_RIGHTS. Names are kept as long as the sockets live: the kernel is asked at intervals
which ones do (wire/tcp_diag.py), in each namespace that we make such sockets in.
"""

from __future__ import annotations

import socket
from functools import partial

import structlog
import trio
from attrs import evolve, frozen

from appswitch.edge.diag import Diag
from appswitch.host.cookies import cookie_of
from appswitch.model import Address, App, Connection, Listener, State
from appswitch.wire import socknames, tcp_diag
from appswitch.wire.socknames import Medium
from appswitch.wire.tcp_diag import TcpSocket

SWEEP_EVERY = 5.0  # seconds

Ends = tuple[tuple[Address, int], tuple[Address, int]]

log = structlog.get_logger()


@frozen
class Name:
    """Of one end of a connection from `client` to `listener`. packed: struct as_client_name."""

    packed: bytes
    client: App
    listener: Listener

    @property
    def medium(self) -> Medium:
        """Which end it is."""
        return socknames.read_medium(self.packed)

    @property
    def ends(self) -> Ends:
        """(source, dest)."""
        read = socknames.read_client_name(self.packed)
        assert read is not None
        return read.source, read.dest

    def of_client(self) -> Name:
        """The other end's name."""
        return evolve(self, packed=socknames.with_medium(self.packed, Medium.TCP_CLIENT))


class TcpNames:
    """By cookie. diags: of the namespaces that the sockets are in."""

    def __init__(self) -> None:
        self.diags: list[Diag] = []
        self._names: dict[int, Name] = {}
        self._sockets_with: dict[Ends, int] = {}

    def add(self, end: socket.socket, name: Name) -> None:
        """The socket has this name as long as it lives."""
        self._names[cookie_of(end)] = name
        self._sockets_with[name.ends] = self._sockets_with.get(name.ends, 0) + 1

    def find(self, cookie: int, app: App) -> bytes | None:
        """What `app`, which has the socket, is to see; None: it isn't one of ours, or none of its connections."""
        name = self._names.get(cookie)
        return name.packed if name is not None and app.id in (name.client.id, name.listener.app.id) else None

    def is_taken(self, source: tuple[Address, int], dest: tuple[Address, int]) -> bool:
        """Whether a connection has these two ends."""
        return (source, dest) in self._sockets_with

    def __len__(self) -> int:
        return len(self._names)

    async def keep_swept(self) -> None:
        """Sweeps for ever."""
        while True:
            await trio.sleep(SWEEP_EVERY)
            if self._names:
                await self.sweep()

    async def sweep(self) -> None:
        """Forgets closed sockets."""
        known = list(self._names)  # one that is made meanwhile need not be among those that are found
        try:
            inodes = await self._inodes()
        except OSError as error:
            log.warning("TCP sockets can't be listed", error=error.strerror)
            return
        for cookie in known:
            if cookie not in inodes:
                self._forget(self._names.pop(cookie))

    def _forget(self, name: Name) -> None:
        self._sockets_with[name.ends] -= 1
        if not self._sockets_with[name.ends]:
            del self._sockets_with[name.ends]

    async def _inodes(self) -> dict[int, int]:
        """By cookie, of the sockets that are open."""
        found: list[TcpSocket] = []
        for diag in self.diags:
            for family in (socket.AF_INET, socket.AF_INET6):
                request = partial(tcp_diag.connected_sockets, family=family)
                found += await diag.dump(request, tcp_diag.decode)
        return {each.cookie: each.inode for each in found if each.inode}

    async def connections(self) -> list[Connection]:
        """All that there are, for Connections.others."""
        inodes = await self._inodes() if self._names else {}
        found: dict[Ends, dict[Medium, tuple[Name, int]]] = {}
        for cookie, name in self._names.items():
            if cookie in inodes:
                found.setdefault(name.ends, {})[name.medium] = name, inodes[cookie]
        return [_connection(ends) for ends in found.values()]


def _connection(ends: dict[Medium, tuple[Name, int]]) -> Connection:
    name, _ = next(iter(ends.values()))
    (_, client), (_, server) = (ends.get(each, (None, 0)) for each in (Medium.TCP_CLIENT, Medium.TCP_SERVER))
    source, dest = name.ends
    return Connection(
        client=name.client,
        source=source,
        dest=dest,
        server=name.listener.app,
        listener=name.listener,
        node=name.client.node,
        state=State.ESTABLISHED if client and server else State.CLOSING,
        medium="tcp",
        inodes=(client, server),
    )
