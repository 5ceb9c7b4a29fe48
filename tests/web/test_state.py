"""The state: whole, as it is, and made no more often than it may be."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from appswitch.model import Connection, Kind
from appswitch.model import State as Stage
from appswitch.web.state import AT_LEAST, MOST_CONNECTIONS, State
from tests.web.world import World


@pytest.fixture
def state(world: World) -> State:
    world.events.taps.append(world.traffic.note)
    return State(world.questions, world.traffic, clock=lambda: world.clock)


async def told(state: State) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await state.json())
    return found


async def test_whole(world: World, state: State) -> None:
    world.publish(Kind.CONNECT)
    world.publish(Kind.DENY, rule="no-db", medium=None)
    found = await told(state)
    assert list(found) == [
        "node", "version", "apps", "services", "nodes", "connections", "connections_total", "externals", "flows",
    ]  # fmt: skip
    assert found["node"] == "n1"
    assert [each["name"] for each in found["apps"]] == ["web", "db"]
    assert [(each["name"], each["port"]) for each in found["services"]] == [("db", 5432)]
    assert found["flows"] == [
        {
            "client": {"name": "web", "ip": str(world.web.ip), "node": "n1", "app": 1},
            "server": {"name": "db", "ip": str(world.db.ip), "node": "n1", "app": 2, "port": 5432},
            "proto": "tcp",
            "medium": "unix",
            "connects": 1,
            "rate": 0.1,
            "open": 0,
            "denied": 1,
            "denied_rate": 0.1,
            "refused": 0,
            "rule": "no-db",
            "last": 1000.0,
        }
    ]


async def test_open_connections_are_counted_all_and_listed_up_to_a_bound(world: World, state: State) -> None:
    ends = (world.web.ip, 40000), (world.db.ip, 5432)
    one = Connection(world.web, *ends, world.db, world.listener, "n1", Stage.ESTABLISHED)
    world.connections = [one] * (MOST_CONNECTIONS + 5)
    found = await told(state)
    assert len(found["connections"]) == MOST_CONNECTIONS
    assert found["connections_total"] == found["flows"][0]["open"] == MOST_CONNECTIONS + 5


async def test_all_who_ask_at_once_get_the_same(world: World, state: State, autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(state.json)
    assert world.snapshots == 1
    await trio.sleep(AT_LEAST)
    await state.json()
    assert world.snapshots == 2


async def test_making_it_takes_a_tenth_of_our_time_at_most(
    world: World, state: State, autojump_clock: MockClock
) -> None:
    async def slow() -> list[Connection]:
        await trio.sleep(3.0)
        world.snapshots += 1
        return []

    world.questions.snapshot = slow
    for _ in range(2):
        await state.json()
    assert world.snapshots == 1
    assert state.pause == pytest.approx(30.0)
    await trio.sleep(state.pause)
    await state.json()
    assert world.snapshots == 2


async def test_the_version_grows_when_something_has_changed(
    world: World, state: State, autojump_clock: MockClock
) -> None:
    versions = []
    for changes in (False, False, True, False):
        if changes:
            world.publish(Kind.CONNECT)
        versions.append((await told(state))["version"])
        await trio.sleep(AT_LEAST)
    assert versions[0] == versions[1] < versions[2] == versions[3]


async def test_counters_are_read_before(world: World, state: State) -> None:
    state.before = lambda: world.traffic.count(world.web, world.db, 5432, 7, world.clock)
    assert (await told(state))["flows"][0]["connects"] == 7


async def test_an_edge_of_an_app_that_has_ended_goes(world: World, state: State, autojump_clock: MockClock) -> None:
    world.publish(Kind.CONNECT)
    world.table.remove_app(world.web.id)
    assert (await told(state))["flows"]
    world.clock += 100
    await trio.sleep(AT_LEAST)
    assert not (await told(state))["flows"]
