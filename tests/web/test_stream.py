"""Server-sent events: each event, when the state has changed, and a word to who is too slow."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from appswitch.edge.events import ROOM
from appswitch.errors import AppSwitchError
from appswitch.model import Kind
from appswitch.web import stream
from appswitch.web.state import State
from appswitch.web.stream import HEARTBEAT, MOST_READERS, EventStream, read_query
from appswitch.wire import control
from tests.web.world import World, get


class Reader:
    """A browser's EventSource (the HTML standard, 9.2.6)."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.comments = 0
        self.blocked = trio.Event()
        self.blocked.set()
        self.got = trio.Event()

    async def send(self, data: bytes) -> None:
        await self.blocked.wait()
        assert data.endswith(b"\n\n")
        for block in data.decode().split("\n\n")[:-1]:
            fields = dict(line.split(":", 1) for line in block.split("\n"))
            self.comments += "" in fields
            if "data" in fields:
                self.events.append((fields.get("event", " message")[1:], fields["data"].strip()))
        self.got.set()

    def named(self, name: str) -> list[dict[str, object]]:
        return [json.loads(data) for event, data in self.events if event == name]


@pytest.fixture
def events(world: World) -> EventStream:
    return EventStream(world.events, State(world.questions, world.traffic, clock=lambda: world.clock))


async def body(events: EventStream, **query: str) -> Callable[[Callable[[bytes], Awaitable[None]]], Awaitable[None]]:
    response = await events.answer(get("/api/events", query))
    assert (response.status, response.type) == (200, "text/event-stream")
    assert response.stream is not None
    return response.stream


async def test_events_are_told_as_observe_tells_them(world: World, events: EventStream) -> None:
    reader = Reader()
    world.publish(Kind.CONNECT, port=1)
    world.publish(Kind.CONNECT, port=2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(await body(events, tail="1"), reader.send)
        await trio.testing.wait_all_tasks_blocked()
        world.publish(Kind.DENY, rule="no")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    told = reader.named("message")
    assert [(each["kind"], each["port"]) for each in told] == [("connect", 2), ("deny", 5432)]
    (last,) = world.events.recent(read_query({"kind": "deny"})[0])
    assert told[-1] == control.event_row(last)


async def test_who_watches_slows_nobody_down(world: World, events: EventStream) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(await body(events), Reader().send)
        await trio.testing.wait_all_tasks_blocked()
        assert not world.events.watched(Kind.CONNECT)
        nursery.cancel_scope.cancel()


async def test_the_state_has_changed(world: World, events: EventStream, autojump_clock: MockClock) -> None:
    reader = Reader()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(await body(events), reader.send)
        await trio.sleep(5)
        assert [each["version"] for each in reader.named("state")] == [events.state.version]
        world.table.remove_app(world.web.id)
        await trio.sleep(5)
        first, second = (each["version"] for each in reader.named("state"))
        assert first != second == events.state.version
        nursery.cancel_scope.cancel()


async def test_heartbeats(events: EventStream, autojump_clock: MockClock) -> None:
    reader = Reader()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(await body(events), reader.send)
        await trio.sleep(4 * HEARTBEAT + 1)
        nursery.cancel_scope.cancel()
    assert reader.comments == 4


async def test_a_slow_reader_is_told_so_and_dropped(world: World, events: EventStream) -> None:
    slow, quick = Reader(), Reader()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(await body(events), slow.send)
        nursery.start_soon(await body(events), quick.send)
        await trio.testing.wait_all_tasks_blocked()
        slow.blocked = trio.Event()
        for number in range(ROOM + 3):
            world.publish(Kind.CONNECT, port=number % 65536)
            if number % 1000 == 0:  # the handler isn't held by who reads slowly
                await trio.testing.wait_all_tasks_blocked()
        slow.blocked.set()
        await trio.testing.wait_all_tasks_blocked()
        assert events.readers == 1
        nursery.cancel_scope.cancel()
    assert slow.events[-1][0] == "end"
    lost = slow.named("message")[-1]
    assert lost["kind"] == "lost"
    assert f"{lost['count']} events were lost" in str(slow.named("end")[0]["reason"])
    assert len(slow.named("message")) - 1 + int(str(lost["count"])) == ROOM + 3
    assert len(quick.named("message")) == ROOM + 3
    assert not quick.named("end")


async def test_so_many_at_most(events: EventStream, autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(MOST_READERS):
            nursery.start_soon(await body(events), Reader().send)
        await trio.testing.wait_all_tasks_blocked()
        response = await events.answer(get("/api/events"))
        assert response.status == 503
        nursery.cancel_scope.cancel()
    await body(events)


@pytest.mark.parametrize("query", [{"tail": "-1"}, {"tail": "x"}, {"kind": "no-such"}])
def test_a_bad_query(query: dict[str, str]) -> None:
    with pytest.raises(AppSwitchError) as caught:
        stream.read_query(query)
    assert caught.value.reason == "bad-query"
