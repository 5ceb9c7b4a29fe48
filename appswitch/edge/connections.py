"""Which connections there are: nobody keeps book, the kernel is asked (wire/unix_diag.py).

A connection belongs to the network namespace that its client's socket was made in, and so does the accepted socket
(unix_stream_connect): the app's where its shim connects by capability, ours where we connect for it. There the
client's name says for whom; in an app's namespace that is known, whatever the name says. The accepted socket has its
listener's name and socket file.

Others have sockets in our namespace, too, and may give them such names: there a client's socket counts when our user
made it, with our salt, and an accepted one by its client, or, when that is closed, by its socket file.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import NamedTuple

import structlog
import trio
from attrs import define, field

from appswitch.edge.apps import Apps
from appswitch.edge.diag import Diag
from appswitch.host.cut import shut_down
from appswitch.model import App, Connection, State
from appswitch.wire import socknames, unix_diag
from appswitch.wire.socknames import ClientName, ListenerName
from appswitch.wire.unix_diag import UnixSocket

AT_ONCE = 100  # connections that are put together before other tasks have their turn

Source = Callable[[], Awaitable[list[Connection]]]

log = structlog.get_logger()


class Client(NamedTuple):
    """A client's end."""

    socket: UnixSocket
    name: ClientName


class Server(NamedTuple):
    """A server's end, or a listener."""

    socket: UnixSocket
    name: ListenerName


@define
class Listening:
    """The listeners, by id, and who waits in whose queue, by the inode of the client's socket."""

    by_id: dict[int, Server]
    waiting: dict[int, Server]


@define
class Connections:
    """Takes snapshots. salt: of our sockets' names; host: for our own namespace."""

    apps: Apps
    salt: int
    host: Diag
    others: list[Source] = field(factory=list)
    """Further sources, of connections that aren't made of Unix sockets."""

    async def snapshot(self) -> list[Connection]:
        """All connections of this host's apps, at about this moment."""
        # First who waits: one that is accepted meanwhile is found connected then.
        listening = await self._listening()
        found = await self._in(self.host, None, listening)
        for app_id, namespace in list(self.apps.namespaces.items()):
            app = self.apps.table.apps.get(app_id)
            if namespace.diag is not None and app is not None:
                found += await self._in(namespace.diag, app, listening)
        for source in self.others:
            found += await source()
        return found

    async def _listening(self) -> Listening:
        """Listeners are in our namespace: we have made their sockets."""
        made = await self._ask(self.host, unix_diag.listening_sockets)
        ours = [each for each in made if isinstance(each, Server) and self._is_ours(each)]
        waiting = {inode: each for each in ours for inode in each.socket.waiting}
        return Listening({each.name.listener_id: each for each in ours}, waiting)

    async def _in(self, diag: Diag, owner: App | None, listening: Listening) -> list[Connection]:
        """owner: whose namespace it is; None: ours."""
        found = []
        for each in self._pair(await self._ask(diag, unix_diag.connected_sockets), owner, listening):
            found.append(each)
            if len(found) % AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
        return found

    async def _ask(self, diag: Diag, request: Callable[[int], bytes]) -> list[Client | Server]:
        try:
            return await diag.dump(request, _read)
        except OSError as error:  # no reason not to tell of the other namespaces
            log.warning("a namespace's connections can't be listed", error=error.strerror)
            return []

    def _pair(self, ends: list[Client | Server], owner: App | None, listening: Listening) -> Iterator[Connection]:
        servers = {each.socket.peer or -each.socket.inode: each for each in ends if isinstance(each, Server)}
        for each in ends:
            if isinstance(each, Client):
                server = servers.pop(each.socket.inode, None)
                if owner is not None or self._is_ours(each):
                    yield self._connection(each, server, listening.waiting.get(each.socket.inode), owner)
        for server in servers.values():  # their clients are closed
            listener = listening.by_id.get(server.name.listener_id)
            if listener.socket.file == server.socket.file if listener else owner is not None:
                yield self._connection(None, server, None, owner)

    def _is_ours(self, end: Client | Server) -> bool:
        return end.name.salt == self.salt and end.socket.uid == os.geteuid()

    def _connection(
        self, client: Client | None, server: Server | None, queue: Server | None, owner: App | None
    ) -> Connection:
        apps = self.apps.table.apps
        to = server or queue
        caller = apps.get(client.name.app_id) if client and owner is None else owner
        shut = client is None or client.socket.shut
        return Connection(
            client=caller,
            source=client and client.name.source,
            dest=client and client.name.dest,
            server=apps.get(to.name.app_id) if to else None,
            listener=self.apps.table.listeners.get(to.name.listener_id) if to else None,
            node=self.apps.table.node,
            state=State.CLOSING if shut else State.ESTABLISHED if server else State.QUEUED,
            inodes=(client.socket.inode if client else 0, server.socket.inode if server else 0),
        )


async def cut(connections: Sequence[Connection]) -> list[Connection]:
    """Ends connections, at whichever end a holder of the socket is found. Those are returned that go on."""
    inodes = {inode for each in connections for inode in each.inodes if inode}
    done = await trio.to_thread.run_sync(shut_down, inodes)
    return [each for each in connections if done.isdisjoint(each.inodes)]


def _read(body: bytes) -> Client | Server | None:
    found = unix_diag.decode(body)
    if found is None:
        return None
    client = socknames.read_client_name(found.name)
    if client is not None:
        return Client(found, client)
    listener = socknames.read_listener_path(found.name)
    return None if listener is None else Server(found, listener)
