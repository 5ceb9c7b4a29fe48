"""Dialling: real listeners whose queues fill, and ports that are short."""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address
from pathlib import Path

import pytest
import trio
import trio.testing

from appswitch.core.balance import Balancer
from appswitch.core.route import Reach
from appswitch.core.service_table import ServiceTable
from appswitch.edge import loads, named
from appswitch.edge.dial import Asked, Dialer
from appswitch.edge.listeners import ListenerSockets
from appswitch.edge.loads import Loads
from appswitch.edge.local_unix import LocalUnix
from appswitch.edge.named import NamedSockets
from appswitch.model import Connection, Listener, State, Tag


class World:
    """A client, and instances of a service."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.stack = stack
        self.table = ServiceTable("n1")
        self.sockets = ListenerSockets(directory)
        stack.callback(self.sockets.close)
        self.client = self.table.new_app(name=None, ip=None)
        self.gone: list[Listener] = []
        self.connections: list[Connection] = []
        self.counted = 0
        self.loads = Loads(self.snapshot)
        self.dialer = self.new_dialer()
        self.asked = Asked(self.client, (IPv4Address("10.1.1.1"), 80), 4)
        self.plans = 0

    def new_dialer(self) -> Dialer:
        """No TCP, no other hosts."""
        unix = LocalUnix(NamedSockets(self.sockets, self.drop, random.Random(1)))
        return Dialer(self.table, Balancer(self.table), self.loads, unix, unix)

    async def snapshot(self) -> list[Connection]:
        self.counted += 1
        await trio.lowlevel.checkpoint()
        return self.connections

    def drop(self, listener: Listener) -> None:
        self.gone.append(listener)
        self.table.remove_listener(listener.id)

    def instance(self, queue: int = 5, *tags: Tag) -> tuple[Listener, socket.socket]:
        app = self.table.new_app(name=None, ip=IPv4Address("10.1.1.1"), tags=tags)
        listener = Listener(self.table.next_listener_id(), app, 4, app.ip, 80, listening=True)
        self.table.add_listener(listener)
        bound = self.stack.enter_context(self.sockets.open(listener))
        bound.listen(queue)
        return listener, bound

    def find(self, port: int = 0) -> Reach:
        self.plans += 1
        return Reach(self.client.ip, port, tuple(self.table.listeners.values()))

    async def connect(self, patience: float = 30.0) -> Listener:
        dialled = await self.dialer.connect(self.find(), self.find, self.asked, patience)
        self.stack.enter_context(dialled.client)
        assert dialled.client.getblocking()
        return dialled.listener


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(tmp_path / "listeners", stack)


async def test_one_that_is_closed_is_gone_past_and_reported(world: World) -> None:
    (closed, socket_of_closed), (lives, _) = world.instance(), world.instance()
    socket_of_closed.close()
    assert [await world.connect() for _ in range(3)] == [lives] * 3
    assert world.gone == [closed]


async def test_one_that_refuses_but_lives_is_put_aside(world: World) -> None:
    (shut, end), (lives, _) = world.instance(), world.instance()
    end.shutdown(socket.SHUT_RDWR)
    assert [await world.connect() for _ in range(3)] == [lives] * 3
    assert world.gone == []
    assert shut.id in world.table.listeners


async def test_nothing_lives(world: World) -> None:
    world.instance()[1].close()
    with pytest.raises(ConnectionRefusedError):
        await world.connect()


async def test_one_that_came_when_the_last_one_went_is_found(world: World) -> None:
    world.instance()[1].close()
    plan = world.find()
    fresh, _ = world.instance()
    dialled = await world.dialer.connect(plan, world.find, world.asked)
    dialled.client.close()
    assert dialled.listener == fresh


async def test_full_ones_are_gone_past(world: World) -> None:
    (full, _), (roomy, _) = world.instance(queue=0), world.instance(queue=50)
    met = [await world.connect() for _ in range(10)]
    assert met.count(full) == 1
    assert met.count(roomy) == 9


async def test_when_all_are_full_it_waits_for_room(world: World) -> None:
    only, bound = world.instance(queue=0)
    await world.connect()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.connect)
        await trio.testing.wait_all_tasks_blocked()
        world.stack.enter_context(bound.accept()[0])
    assert world.plans > 2
    assert only.id in world.table.listeners


async def test_when_all_are_full_a_new_one_is_found(world: World) -> None:
    world.instance(queue=0)
    await world.connect()
    met: list[Listener] = []

    async def connect() -> None:
        met.append(await world.connect())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(connect)
        await trio.testing.wait_all_tasks_blocked()
        fresh, _ = world.instance()
    assert met == [fresh]


async def test_patience_ends(world: World) -> None:
    world.instance(queue=0)
    await world.connect()
    with pytest.raises(TimeoutError):
        await world.connect(patience=0.02)


async def test_it_stops_when_there_is_nowhere_to_go_any_more(world: World) -> None:
    def again() -> Reach:
        if world.plans == 4:
            raise ConnectionAbortedError(errno.ECONNABORTED, "the caller has gone")
        return world.find()

    world.instance(queue=0)
    await world.connect()
    with pytest.raises(ConnectionAbortedError):
        await world.dialer.connect(world.find(), again, world.asked)


async def test_a_long_search_for_a_port_lets_others_have_their_turn(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(named, "OUR_PORTS", range(32768, 32768 + 4 * named.AT_ONCE))
    dialer = world.new_dialer()
    world.instance(queue=500)
    for _ in named.OUR_PORTS:
        world.stack.enter_context((await dialer.connect(world.find(), world.find, world.asked)).client)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        with pytest.raises(OSError, match="no port is free") as caught:
            await dialer.connect(world.find(), world.find, world.asked)
        nursery.cancel_scope.cancel()
    assert caught.value.errno == errno.EADDRNOTAVAIL
    assert turns >= 2


async def test_a_bound_port_that_is_in_use(world: World) -> None:
    world.instance()
    dialled = await world.dialer.connect(world.find(5000), world.find, world.asked)
    with dialled.client, pytest.raises(OSError, match="in use") as caught:
        await world.dialer.connect(world.find(5000), world.find, world.asked)
    assert caught.value.errno == errno.EADDRNOTAVAIL


# --- by how many connections each has


async def test_least_connections(world: World, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loads, "HOLDS", 1e9)
    (busy, _), (idle, _) = world.instance(5, ("balance", "least-connections")), world.instance()
    world.connections = [Connection(None, None, None, busy.app, busy, "n1", State.ESTABLISHED)] * 3
    nursery.start_soon(world.loads.keep)
    assert [await world.connect() for _ in range(3)] == [idle] * 3
    assert world.counted == 1
    assert busy in [await world.connect() for _ in range(2)], "what was dialled since counts, too"


async def test_without_need_nobody_counts(world: World, nursery: trio.Nursery) -> None:
    world.instance()
    nursery.start_soon(world.loads.keep)
    await world.connect()
    assert world.counted == 0


async def test_a_count_that_takes_long_is_not_waited_for(world: World) -> None:
    """Nobody counts at all."""
    world.instance(5, ("balance", "least-connections"))
    world.instance()
    assert len({(await world.connect()).id for _ in range(2)}) == 2
