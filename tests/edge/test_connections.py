"""Snapshots of the connections: real sockets, with names as the trap handler and the shim give them."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from appswitch.core.service_table import ServiceTable
from appswitch.edge.apps import Apps
from appswitch.edge.connections import Connections
from appswitch.edge.diag import Diag
from appswitch.edge.epoch import Epoch
from appswitch.edge.events import Events
from appswitch.edge.listeners import ListenerSockets
from appswitch.edge.namespaces import Namespace
from appswitch.host import namespace
from appswitch.model import Connection, Listener, State
from appswitch.wire import socknames

NOBODY = 65534


class World:
    """An app that serves port 80, and another one that connects to it."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.stack = stack
        self.directory = directory
        self.table = ServiceTable("n1")
        self.sockets = ListenerSockets(directory / "listeners")
        self.salt = self.sockets.salt
        self.epoch = Epoch()
        self.apps = Apps(self.table, self.sockets, self.epoch, Events("n1"))
        self.server = self.table.new_app(name="web", ip=IPv4Address("10.1.1.1"))
        self.client = self.table.new_app(name="me", ip=IPv4Address("10.1.1.2"))
        self.listener = Listener(self.table.next_listener_id(), self.server, 4, self.server.ip, 80, listening=True)
        self.table.add_listener(self.listener)
        self.listening = stack.enter_context(self.sockets.open(self.listener))
        self.listening.listen(5)
        self.diag = stack.enter_context(namespace.open_diag_socket())
        self.connections = Connections(self.apps, self.salt, Diag(self.diag))
        stack.callback(self.sockets.close)
        stack.callback(self.epoch.close)

    def dial(self, port: int = 40000, salt: int | None = None, app: int | None = None) -> socket.socket:
        client = self.stack.enter_context(socket.socket(socket.AF_UNIX))
        dest = IPv4Address("10.1.1.1"), 80
        number = self.client.id if app is None else app
        client.bind(
            socknames.client_name(self.salt if salt is None else salt, (self.client.ip, port), dest, 4, 4, number)
        )
        client.connect(self.sockets.path(self.listener.id))
        return client

    def accept(self) -> socket.socket:
        return self.stack.enter_context(self.listening.accept()[0])


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(tmp_path, stack)


def inode(end: socket.socket) -> int:
    return os.fstat(end.fileno()).st_ino


def expected(world: World, client: socket.socket | None, server: socket.socket | None, state: State) -> Connection:
    return Connection(
        client=world.client if client else None,
        source=(world.client.ip, 40000) if client else None,
        dest=(IPv4Address("10.1.1.1"), 80) if client else None,
        server=world.server,
        listener=world.listener,
        node="n1",
        state=state,
        inodes=(inode(client) if client else 0, inode(server) if server else 0),
    )


async def test_one_that_the_trap_handler_made(world: World) -> None:
    assert await world.connections.snapshot() == []
    client = world.dial()
    assert await world.connections.snapshot() == [expected(world, client, None, State.QUEUED)]
    accepted = world.accept()
    assert await world.connections.snapshot() == [expected(world, client, accepted, State.ESTABLISHED)]
    client.shutdown(socket.SHUT_WR)
    assert await world.connections.snapshot() == [expected(world, client, accepted, State.ESTABLISHED)]
    client.shutdown(socket.SHUT_RDWR)
    assert await world.connections.snapshot() == [expected(world, client, accepted, State.CLOSING)]
    client.close()
    assert await world.connections.snapshot() == [expected(world, None, accepted, State.CLOSING)]
    accepted.close()
    assert await world.connections.snapshot() == []


async def test_the_servers_end_is_closed_first(world: World) -> None:
    client = world.dial()
    world.accept().close()
    (left,) = await world.connections.snapshot()
    assert (left.client, left.server, left.state) == (world.client, None, State.CLOSING)
    assert left.dest == (IPv4Address("10.1.1.1"), 80)
    assert left.inodes == (inode(client), 0)


async def test_it_outlives_its_listener_and_its_client_app(world: World) -> None:
    world.dial()
    world.accept()
    world.table.remove_listener(world.listener.id)
    world.listening.close()
    world.table.remove_app(world.client.id)
    (left,) = await world.connections.snapshot()
    assert (left.client, left.server, left.state) == (None, world.server, State.ESTABLISHED)


async def test_another_trap_handlers_are_not_ours(world: World) -> None:
    world.dial(salt=world.salt ^ 1)
    accepted = world.accept()
    assert await world.connections.snapshot() == []
    other = Connections(world.apps, world.salt ^ 1, Diag(world.diag))
    assert [each.inodes[1] for each in await other.snapshot()] == [inode(accepted)]


@pytest.mark.root
async def test_a_name_that_somebody_else_gave_his_socket(world: World) -> None:
    forged = socket.socket(socket.AF_UNIX)
    world.stack.callback(forged.close)
    os.fchown(forged.fileno(), NOBODY, -1)  # as if made by that user
    forged.bind(socknames.client_name(world.salt, (world.client.ip, 1), (world.server.ip, 80), 4, 4, world.client.id))
    forged.connect(world.sockets.path(world.listener.id))
    world.accept()
    assert await world.connections.snapshot() == []


@pytest.mark.root
async def test_a_listener_that_somebody_else_named_like_ours(world: World) -> None:
    directory = os.open(world.directory, os.O_PATH)
    world.stack.callback(os.close, directory)
    path = f"/proc/self/fd/{directory}/{socknames.listener_file(world.salt, world.listener)}"
    with socket.socket(socket.AF_UNIX) as forged, socket.socket(socket.AF_UNIX) as client:
        os.fchown(forged.fileno(), NOBODY, -1)
        forged.bind(path)
        forged.listen()
        client.connect(path)
        accepted, _ = forged.accept()
        client.close()
        with accepted:
            assert await world.connections.snapshot() == []


@pytest.mark.root
async def test_one_that_was_made_in_an_apps_namespace(world: World) -> None:
    with ThreadPoolExecutor(1, initializer=namespace.enter_new_namespace) as elsewhere:
        diag = elsewhere.submit(namespace.open_diag_socket).result()
        world.apps.namespaces[world.client.id] = Namespace([diag])
        client = elsewhere.submit(world.dial, salt=0, app=0).result()
        accepted = world.accept()
        made = expected(world, client, accepted, State.ESTABLISHED)
        assert await world.connections.snapshot() == [made]
        client.close()
        (left,) = await world.connections.snapshot()
        assert (left.client, left.server, left.state) == (world.client, world.server, State.CLOSING)
        diag.close()
        assert await world.connections.snapshot() == [], "a namespace that can't be asked is left out"


async def test_other_sources(world: World) -> None:
    outside = Connection(world.client, None, None, None, None, "n1", State.ESTABLISHED, medium="tcp")

    async def source() -> list[Connection]:
        return [outside]

    world.connections.others.append(source)
    assert await world.connections.snapshot() == [outside]
