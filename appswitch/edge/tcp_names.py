"""The names of TCP connections' ends: what getsockname and getpeername are to say of sockets that have other addresses.

The shim is told the name with the socket; a program that got the socket from another one asks by its cookie, which is
the same after fork, exec and SCM_RIGHTS. Names are kept as long as the sockets live: the kernel is asked at intervals
which ones do (wire/tcp_diag.py), in each namespace that we make such sockets in.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from itertools import chain
from typing import Any

import structlog
import trio
from attrs import evolve, frozen

from appswitch.edge.diag import Diag
from appswitch.host.cookies import cookie_of
from appswitch.model import GATEWAY, Address, App, Connection, Listener, State
from appswitch.wire import socknames, tcp_diag
from appswitch.wire.socknames import Medium
from appswitch.wire.tcp_diag import TcpSocket

SWEEP_EVERY = 5.0  # seconds
AT_ONCE = 1000  # names that are looked at before other tasks have their turn

Ends = tuple[tuple[Address, int], tuple[Address, int]]

log = structlog.get_logger()


@frozen
class Name:
    """Of one end of a connection from `client` to `listener`. packed: struct as_client_name.

    client, listener: None: the outside; server_names: of a server there (model.Outside); by_gateway: it leaves by
    another node.
    """

    packed: bytes
    client: App | None
    listener: Listener | None
    server_names: tuple[str, ...] = ()
    by_gateway: bool = False

    @property
    def apps(self) -> tuple[App, ...]:
        """Whose connection it is."""
        server = self.listener.app if self.listener else None
        return tuple(each for each in (self.client, server) if each is not None)

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

    @property
    def is_remote(self) -> bool:
        """Whether the other end is on another host."""
        if self.client is None or self.listener is None or self.listener.outside is not None:
            return True
        return self.client.node != self.listener.app.node

    def of_client(self) -> Name:
        """The other end's name."""
        return evolve(self, packed=socknames.with_medium(self.packed, Medium.TCP_CLIENT))


@frozen
class WayIn:
    """Of clients outside: to this listener, let in by this rule."""

    listener: Listener
    rule: str


Came = tuple[bytes, WayIn]
"""A client outside that has got through; the first is `packed` of the name of the connection's end here."""


def name_of(came: Came) -> Name:
    """The name of the connection's end here."""
    packed, way = came
    return Name(packed, None, way.listener)


def facts_of(came: Came) -> dict[str, Any]:
    """For its event."""
    source, (ip, port) = name_of(came).ends
    _, way = came
    return {
        "address": ip,
        "port": port,
        "proto": "tcp",
        "medium": "tcp",
        "source": source,
        "server": way.listener.app,
        "rule": way.rule,
    }


class TcpNames:
    """By cookie. diags: of the namespaces that the sockets are in.

    takers: have names put that are still on their way here (edge/express.py, edge/lanes_in.py); flushes: do so, too,
    but it takes a while (edge/doors.py).
    """

    def __init__(self) -> None:
        self.diags: list[Diag] = []
        self.takers: list[Callable[[], None]] = []
        self.flushes: list[Callable[[], Awaitable[None]]] = []
        self._names: dict[int, Name] = {}
        self._came: dict[int, Came] = {}
        """Others: these come ten thousand times a second, and few are asked for before they have gone."""
        self._sockets_with: dict[Ends, int] = {}

    def add(self, end: socket.socket, name: Name) -> None:
        """The socket has this name as long as it lives."""
        self.put(cookie_of(end), name)

    def put(self, cookie: int, name: Name) -> None:
        """The socket that has this cookie, too. That a client from outside has its ends alone, its kernel sees to."""
        self._names[cookie] = name
        if name.client is not None:
            self.reserve(name.ends)

    def put_all(self, came: Mapping[int, Came]) -> None:
        """As `put`, clients outside, by cookie."""
        self._came.update(came)

    def _find(self, cookie: int) -> Name | None:
        if cookie in self._came:
            return name_of(self._came[cookie])
        return self._names.get(cookie)

    def take(self) -> None:
        """Names that are on their way here are here."""
        for each in self.takers:
            each()

    def reserve(self, ends: Ends) -> None:
        """They are taken, too, as often as they are not released."""
        self._sockets_with[ends] = self._sockets_with.get(ends, 0) + 1

    def release(self, ends: Ends) -> None:
        """The opposite of `reserve`."""
        self._sockets_with[ends] -= 1
        if not self._sockets_with[ends]:
            del self._sockets_with[ends]

    def find(self, cookie: int, app: App) -> bytes | None:
        """What `app`, which has the socket, is to see; None: it isn't one of ours, or none of its connections."""
        if cookie not in self:
            self.take()
        name = self._find(cookie)
        return name.packed if name is not None and app.id in [each.id for each in name.apps] else None

    def __contains__(self, cookie: int) -> bool:
        """Whether this socket has one, still."""
        return cookie in self._names or cookie in self._came

    def is_taken(self, source: tuple[Address, int], dest: tuple[Address, int]) -> bool:
        """Whether a connection has these two ends."""
        return (source, dest) in self._sockets_with

    def __len__(self) -> int:
        return len(self._names) + len(self._came)

    async def keep_swept(self) -> None:
        """Sweeps for ever."""
        while True:
            await trio.sleep(SWEEP_EVERY)
            if len(self):
                await self.sweep()

    async def sweep(self) -> None:
        """Forgets closed sockets."""
        self.take()
        known = [*self._names, *self._came]  # one that is made meanwhile need not be among those that are found
        try:
            found = await self._sockets()
        except OSError as error:
            log.warning("TCP sockets can't be listed", error=error.strerror)
            return
        for count, cookie in enumerate(known, 1):
            if cookie not in found and self._came.pop(cookie, None) is None:
                name = self._names.pop(cookie)
                if name.client is not None:
                    self.release(name.ends)
            if count % AT_ONCE == 0:  # a gateway's may be a hundred thousand
                await trio.lowlevel.checkpoint()

    async def _sockets(self) -> dict[int, TcpSocket]:
        """By cookie, those that are open."""
        found: list[TcpSocket] = []
        for diag in self.diags:
            for family in (socket.AF_INET, socket.AF_INET6):
                request = partial(tcp_diag.connected_sockets, family=family)
                found += await diag.dump(request, tcp_diag.decode)
        return {each.cookie: each for each in found if each.inode}

    async def connections(self) -> list[Connection]:
        """All that there are, for Connections.others."""
        for flush in self.flushes:
            await flush()
        self.take()
        sockets = await self._sockets() if len(self) else {}
        found: dict[Ends, dict[Medium, tuple[Name, TcpSocket]]] = {}
        for cookie in chain(self._names, self._came):
            name = self._find(cookie) if cookie in sockets else None
            if name is not None:
                found.setdefault(name.ends, {})[name.medium] = name, sockets[cookie]
        return [_connection(ends) for ends in found.values()]


def _connection(ends: dict[Medium, tuple[Name, TcpSocket]]) -> Connection:
    name, end = next(iter(ends.values()))
    client, server = (ends[each][1].inode if each in ends else 0 for each in (Medium.TCP_CLIENT, Medium.TCP_SERVER))
    source, dest = name.ends
    if name.is_remote:
        state = _STATES.get(end.state, State.CLOSING)
    else:
        state = State.ESTABLISHED if client and server else State.CLOSING
    server_app = name.listener.app if name.listener else None
    nearest = name.apps[0] if name.medium is Medium.TCP_CLIENT else name.apps[-1]  # whose node we are
    return Connection(
        client=name.client,
        source=source,
        dest=dest,
        server=server_app,
        listener=name.listener,
        node=nearest.node,
        state=state,
        medium=GATEWAY if name.by_gateway else "tcp",
        inodes=(client, server),
        names=name.server_names,
    )


_STATES = {tcp_diag.ESTABLISHED: State.ESTABLISHED, tcp_diag.SYN_SENT: State.QUEUED}
