"""Draining: who counts, and what ends the wait."""

from __future__ import annotations

import math
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest
import trio
import trio.testing

from appswitch.core.service_table import ServiceTable
from appswitch.edge.apps import Apps
from appswitch.edge.draining import LOOKS, Draining
from appswitch.edge.epoch import Epoch
from appswitch.edge.events import Events
from appswitch.edge.listeners import ListenerSockets
from appswitch.errors import AppSwitchError
from appswitch.model import App, Connection, State


class World:
    def __init__(self, directory: Path) -> None:
        self.table = ServiceTable("n1")
        self.sockets = ListenerSockets(directory)
        self.epoch = Epoch()
        self.apps = Apps(self.table, self.sockets, self.epoch, Events("n1"))
        self.web = [self.table.new_app(name="web", ip=IPv4Address("10.1.1.1")) for _ in range(2)]
        self.client = self.table.new_app(name="client", ip=None)
        self.connections: list[Connection] = []
        self.looks = 0
        self.draining = Draining(self.apps, self.snapshot)

    async def snapshot(self) -> list[Connection]:
        self.looks += 1
        await trio.lowlevel.checkpoint()
        return self.connections

    def connection(self, client: App | None, server: App | None) -> Connection:
        return Connection(client, None, None, server, None, "n1", State.ESTABLISHED)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "listeners")
    yield made
    made.sockets.close()
    made.epoch.close()


@pytest.mark.parametrize("text", ["web", "WEB.appswitch.local", "10.1.1.1"])
def test_all_that_are_called_so(world: World, text: str) -> None:
    epoch = world.epoch.now
    assert world.draining.start(text) == world.web
    assert world.table.draining == {app.id for app in world.web}
    assert world.epoch.now > epoch, "capabilities end"
    assert world.draining.undo(text) == world.web
    assert world.table.draining == set()


def test_one_of_them(world: World) -> None:
    assert world.draining.start(str(world.web[1].id)) == [world.web[1]]
    world.table.remove_app(world.web[1].id)
    assert world.table.draining == set()
    with pytest.raises(AppSwitchError, match="there is no app"):
        world.draining.start(str(world.web[1].id))


async def test_whose_connections_count(world: World) -> None:
    one, other = world.web
    world.connections = [
        world.connection(world.client, one),
        world.connection(None, one),  # of a client that has closed it
        world.connection(one, one),
        world.connection(other, one),
        world.connection(one, world.client),
        world.connection(one, None),
        world.connection(world.client, other),
    ]
    assert await world.draining.left([one]) == {one.id: 3}


async def test_the_wait_ends_with_the_last_connection(world: World, autojump_clock: trio.testing.MockClock) -> None:
    world.connections = [world.connection(world.client, world.web[0])]
    apps = world.draining.start("web")
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def end_it() -> None:
            await trio.sleep(5)
            world.connections = []

        assert await world.draining.wait(apps, math.inf) is None
    assert 5 < trio.current_time() < 6
    assert world.looks > 10


async def test_the_wait_ends_with_its_time(world: World, autojump_clock: trio.testing.MockClock) -> None:
    world.connections = [world.connection(world.client, world.web[0])] * 2
    error = await world.draining.wait(world.draining.start("web"), 3)
    assert error is not None
    assert error.message == "2 connections are left after 3 s"
    assert world.table.draining


@pytest.mark.parametrize("patience", [0, 0.05])
async def test_where_none_is_left_no_time_is_too_short(
    world: World, patience: float, autojump_clock: trio.testing.MockClock
) -> None:
    assert await world.draining.wait(world.draining.start("web"), patience) is None
    assert world.looks == LOOKS
    world.connections = [world.connection(world.client, world.web[0])]
    error = await world.draining.wait(world.draining.start("web"), patience)
    assert error is not None
    assert error.message == f"1 connection is left after {patience:g} s"


async def test_the_wait_ends_with_the_app(world: World) -> None:
    apps = world.draining.start("web")
    for app in apps:
        world.table.remove_app(app.id)
    assert await world.draining.wait(apps, math.inf) is None
