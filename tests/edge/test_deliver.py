"""TCP connections on their way through an app's Unix listener, and the names that they have then."""

from __future__ import annotations

import errno
import os
import random
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from appswitch.core.balance import Balancer
from appswitch.core.route import Reach
from appswitch.core.service_table import ServiceTable
from appswitch.edge.deliver import Deliverer
from appswitch.edge.diag import Diag
from appswitch.edge.dial import Asked, Dialer
from appswitch.edge.listeners import ListenerSockets
from appswitch.edge.loads import Loads
from appswitch.edge.local_tcp import LocalTcp
from appswitch.edge.local_unix import LocalUnix
from appswitch.edge.named import NamedSockets
from appswitch.edge.sealed import Sealed
from appswitch.edge.tcp_names import Name, TcpNames
from appswitch.host import namespace
from appswitch.host.cookies import cookie_of
from appswitch.model import App, Connection, Listener, State
from appswitch.wire import socknames
from appswitch.wire.socknames import Medium

CLIENT = App(id=1, ip=IPv4Address("10.1.1.1"), node="n1")
SERVER = App(id=2, ip=IPv4Address("10.1.1.2"), node="n1", tcp=True)
STRANGER = App(id=3, ip=IPv4Address("10.1.1.3"), node="n1")
DEST = SERVER.ip, 80
PATIENCE = 5.0


class World:
    """Listeners of SERVER's, and CLIENT, who asks to be connected."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.stack = stack
        self.sockets = ListenerSockets(directory / "listeners")
        self.gone: list[int] = []
        self.names = TcpNames()
        self.names.diags.append(Diag(stack.enter_context(namespace.open_diag_socket())))
        rng = random.Random(1)
        table = ServiceTable("n1")
        balancer, loads = Balancer(table), Loads(self.names.connections)
        named = NamedSockets(self.sockets, lambda each: self.gone.append(each.id), rng, self.names.is_taken)
        self.deliverer = Deliverer(named, self.names)
        self.sealed = Sealed(self.names.diags)
        self.local = LocalTcp(self.deliverer, self.sealed)
        self.dialer = Dialer(table, balancer, loads, LocalUnix(named), self.local)
        self.asked = Asked(CLIENT, DEST, 4)
        stack.callback(self.sockets.close)

    def serve(self, number: int) -> tuple[Listener, socket.socket]:
        listener = Listener(number, SERVER, 4, SERVER.ip, 80, listening=True)
        listening = self.stack.enter_context(self.sockets.open(listener))
        listening.listen(5)
        return listener, listening

    async def deliver(self, listener: Listener, end: socket.socket, port: int = 0) -> Name:
        with await self.deliverer.address((CLIENT.ip, port), self.asked, listener) as carrier:
            return self.deliverer.deliver(carrier, CLIENT, listener, end)

    def stop_local(self) -> None:
        self.sealed._stop()
        for diag in self.names.diags[1:]:
            diag.socket.close()

    def tcp(self) -> tuple[socket.socket, socket.socket]:
        """A connection that somebody has made: the client's end and the server's."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = self.stack.enter_context(socket.create_connection(listener.getsockname()))
            return client, self.stack.enter_context(listener.accept()[0])


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(tmp_path, stack)


def plan(*candidates: Listener) -> tuple[Reach, Callable[[], Reach]]:
    """The plan, and how to make it again."""
    made = Reach(CLIENT.ip, 0, candidates)
    return made, lambda: made


def take(listening: socket.socket) -> tuple[bytes, socket.socket]:
    """As accept of the shim: the name that it came by, and what was delivered."""
    listening.settimeout(PATIENCE)
    carrier, name = listening.accept()
    with carrier:
        _, fds, _, _ = socket.recv_fds(carrier, 1, 2)
        (fd,) = fds
        return name, socket.socket(fileno=fd)


async def test_a_delivery(world: World) -> None:
    listener, listening = world.serve(1)
    client, server = world.tcp()
    name = await world.deliver(listener, server)
    packed, delivered = take(listening)
    with delivered:
        assert cookie_of(delivered) == cookie_of(server)
        client.sendall(b"there")
        assert delivered.recv(9) == b"there"
    read = socknames.read_client_name(packed)
    assert read is not None
    assert (read.source[0], read.dest, read.app_id) == (CLIENT.ip, DEST, CLIENT.id)
    assert packed == name.packed
    assert socknames.read_medium(packed) == Medium.TCP_SERVER


async def test_whoever_has_an_end_may_ask_for_its_name_and_nobody_else(world: World) -> None:
    listener, _ = world.serve(1)
    client, server = world.tcp()
    name = await world.deliver(listener, server)
    world.names.add(client, name.of_client())
    for end, medium in ((client, Medium.TCP_CLIENT), (server, Medium.TCP_SERVER)):
        for app in (CLIENT, SERVER):
            found = world.names.find(cookie_of(end), app)
            assert found is not None
            assert socknames.read_medium(found) == medium
        assert world.names.find(cookie_of(end), STRANGER) is None
    other, _ = world.tcp()
    assert world.names.find(cookie_of(other), CLIENT) is None


async def test_connections_as_long_as_they_live(world: World) -> None:
    listener, listening = world.serve(1)
    client, server = world.tcp()
    name = await world.deliver(listener, server)
    world.names.add(client, name.of_client())
    _, delivered = take(listening)
    server.close()
    with delivered:
        inodes = os.fstat(client.fileno()).st_ino, os.fstat(delivered.fileno()).st_ino
        source, dest = name.ends
        row = Connection(CLIENT, source, dest, SERVER, listener, "n1", State.ESTABLISHED, medium="tcp", inodes=inodes)
        assert await world.names.connections() == [row]
        await world.names.sweep()
        assert len(world.names) == 2
        client.close()
        await world.names.sweep()
        assert len(world.names) == 1
        (row,) = await world.names.connections()
        assert (row.state, row.inodes) == (State.CLOSING, (0, inodes[1]))
        assert world.names.is_taken(*name.ends)
    await world.names.sweep()
    assert len(world.names) == 0
    assert not world.names.is_taken(*name.ends)
    assert await world.names.connections() == []


async def test_an_instance_that_has_gone_is_tried_past(world: World) -> None:
    (gone, closed), (listener, listening) = world.serve(1), world.serve(2)
    closed.close()
    try:
        dialled = await world.dialer.connect(*plan(gone, listener), world.asked, PATIENCE)
        dialled.client.close()
        assert dialled.listener.id == 2
        assert world.gone == [1]
        take(listening)[1].close()
        listening.close()
        with pytest.raises(ConnectionRefusedError):
            await world.dialer.connect(*plan(gone, listener), world.asked, PATIENCE)
    finally:
        world.stop_local()


async def test_no_two_connections_have_the_same_ends(world: World) -> None:
    listener, _ = world.serve(1)
    _, server = world.tcp()
    await world.deliver(listener, server, 40000)
    with pytest.raises(OSError, match="in use") as caught:
        await world.deliver(listener, server, 40000)
    assert caught.value.errno == errno.EADDRNOTAVAIL


async def test_local_connections_outlive_the_process_that_makes_them(world: World) -> None:
    listener, listening = world.serve(1)
    try:
        first = await world.dialer.connect(*plan(listener), world.asked, PATIENCE)
        packed, server = take(listening)
        assert first.name is not None
        assert first.name.packed == socknames.with_medium(packed, Medium.TCP_CLIENT)
        assert world.sealed._process is not None
        world.sealed._process._process.kill()
        world.sealed._process._process.wait()
        again = await world.dialer.connect(*plan(listener), world.asked, PATIENCE)
        _, later = take(listening)
        with first.client, server, again.client, later:
            for one, other in ((first.client, server), (again.client, later)):
                one.sendall(b"there")
                assert other.recv(9) == b"there"
            assert [each.state for each in await world.names.connections()] == [State.ESTABLISHED] * 2
    finally:
        world.stop_local()
