"""The events: each subscriber gets all of them, or is told how many it has missed."""

from __future__ import annotations

import json
import time
from ipaddress import IPv4Address
from typing import Any

import pytest
import structlog.testing
import trio
import trio.testing

from appswitch.edge.events import LOGGED_A_SECOND, LOGGED_AT_ONCE, RECENT, ROOM, Events, Filter
from appswitch.model import App, Event, Kind
from appswitch.wire import control

WEB = App(1, IPv4Address("10.1.1.1"), "n1", name="web")
DB = App(2, IPv4Address("10.1.1.2"), "n1", name="db")
ALL = Filter()


@pytest.fixture
def events() -> Events:
    """At the time 0, 1, 2..."""
    return Events("n1", clock=iter(range(10**9)).__next__)


def ports(given: list[Event]) -> list[int | None]:
    return [each.port for each in given]


def test_the_recent_ones_are_bounded(events: Events) -> None:
    for number in range(RECENT + 3):
        events.publish(Kind.CONNECT, WEB, port=number)
    recent = events.recent(ALL)
    assert ports(recent) == list(range(3, RECENT + 3))
    assert recent[0] == Event(3, Kind.CONNECT, "n1", WEB, port=3)


async def test_a_subscriber_gets_what_happens_while_it_is_there(events: Events) -> None:
    events.publish(Kind.CONNECT, WEB, port=1)
    with events.subscribe(ALL) as one, events.subscribe(Filter(frozenset({Kind.DENY}))) as other:
        events.publish(Kind.CONNECT, WEB, port=2)
        events.publish(Kind.DENY, WEB, port=3)
        assert ports(await one.batch()) == [2, 3]
        assert ports(await other.batch()) == [3]
    events.publish(Kind.DENY, WEB, port=4)
    with trio.testing.assert_checkpoints(), trio.move_on_after(0):
        await one.batch()
        pytest.fail("it is no subscriber any more")


async def test_a_slow_subscriber_is_told_what_it_lost(events: Events) -> None:
    with events.subscribe(ALL) as slow:
        for number in range(ROOM + 5):
            events.publish(Kind.CONNECT, WEB, port=number)
        batch = await slow.batch()
        assert ports(batch[:-1]) == list(range(ROOM))
        assert (batch[-1].kind, batch[-1].count) == (Kind.LOST, 5)
        events.publish(Kind.CONNECT, WEB, port=7)
        assert ports(await slow.batch()) == [7]


async def test_a_subscriber_that_waits_is_woken(events: Events, nursery: trio.Nursery) -> None:
    got: list[Event] = []

    async def read() -> None:
        with events.subscribe(ALL) as subscription:
            got.extend(await subscription.batch())

    nursery.start_soon(read)
    await trio.testing.wait_all_tasks_blocked()
    events.publish(Kind.LISTEN, WEB, port=80)
    await trio.testing.wait_all_tasks_blocked()
    assert ports(got) == [80]


@pytest.mark.parametrize("text", ["web", "1", "10.1.1.1"])
def test_filter_by_app(text: str) -> None:
    wanted = Filter(app=text)
    assert wanted.matches(Event(0, Kind.CONNECT, "n1", WEB, server=DB))
    assert wanted.matches(Event(0, Kind.CONNECT, "n1", DB, server=WEB))
    assert not wanted.matches(Event(0, Kind.CONNECT, "n1", DB, server=DB))
    assert not wanted.matches(Event(0, Kind.DENY, "n1", None))


def test_watched(events: Events) -> None:
    assert not events.watched(Kind.CONNECT)
    with events.subscribe(Filter(frozenset({Kind.DENY}), "web")):
        assert events.watched(Kind.DENY)
        assert not events.watched(Kind.CONNECT)
        with events.subscribe(ALL):
            assert events.watched(Kind.CONNECT)
    assert not events.watched(Kind.DENY)


def test_the_log_has_the_rare_ones(events: Events) -> None:
    with structlog.testing.capture_logs() as lines:
        events.publish(Kind.CONNECT, WEB, port=80)
        events.publish(Kind.RESOLVE, WEB, query="db")
        events.publish(Kind.DENY, WEB, server=DB, port=80, rule="grp", error=111)
    assert lines == [
        {"event": "deny", "app": 1, "name": "web", "ip": "10.1.1.1", "server_app": 2, "server_name": "db",
         "server_ip": "10.1.1.2", "port": 80, "rule": "grp", "errno": "ECONNREFUSED", "log_level": "info"}
    ]  # fmt: skip


def test_the_log_has_nothing_of_clients_outside(events: Events) -> None:
    """Who reaches a gateway could fill the disk."""
    with structlog.testing.capture_logs() as lines:
        events.publish(Kind.DENY, server=WEB, source=(IPv4Address("192.0.2.9"), 40000))
    assert not lines
    assert events.recent(ALL)


def test_an_app_has_so_much_room_in_the_log(events: Events, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with structlog.testing.capture_logs() as lines:
        for _ in range(LOGGED_AT_ONCE + 7):
            events.publish(Kind.DENY, WEB, port=80)
        events.publish(Kind.DENY, DB, port=80)
        assert [line["app"] for line in lines] == [1] * LOGGED_AT_ONCE + [2]
        now += 1
        events.publish(Kind.DENY, WEB, port=80)
        events.publish(Kind.DENY, WEB, port=80)
        assert [line.get("unlogged") for line in lines[-2:]] == [7, None]
        for _ in range(LOGGED_A_SECOND):
            events.publish(Kind.DENY, WEB, port=80)
        events.publish(Kind.APP_END, WEB)
    assert (lines[-1]["event"], lines[-1]["unlogged"]) == ("app-end", 2)
    assert len(events.recent(ALL)) == LOGGED_AT_ONCE + 21


def test_a_row_has_every_field_and_is_json() -> None:
    full = control.event_row(Event(1.5, Kind.REFUSE, "n1", WEB, DB, IPv4Address("10.1.1.9"), 80, "tcp", error=9999))
    assert full["time"] == "1970-01-01T00:00:01.500000+00:00"
    assert (full["address"], full["errno"]) == ("10.1.1.9", "9999")
    assert set(full) == set(control.event_row(Event(0, Kind.LOST, "n1", count=3)))
    assert json.loads(json.dumps(full)) == full


def test_what_is_put_together_only_when_it_is_wanted() -> None:
    events, made = Events("n1", lambda: 5.0), []

    def facts(port: int) -> dict[str, Any]:
        made.append(port)
        return {"port": port}

    events.publish_all(Kind.CONNECT, facts, [80, 81])
    assert not made
    assert [(each.time, each.kind, each.port) for each in events.recent(ALL)] == [
        (5.0, Kind.CONNECT, 80),
        (5.0, Kind.CONNECT, 81),
    ]
    made.clear()
    with events.subscribe(Filter(frozenset({Kind.DENY}))):
        events.publish_all(Kind.CONNECT, facts, [82])
        assert not made
    with events.subscribe(ALL) as subscription:
        events.publish_all(Kind.CONNECT, facts, [83, 84])
        assert made == [83, 84]
        assert len(subscription._waiting) == 2


def test_who_asks_hears_of_all_that_has_happened_once() -> None:
    events = Events("n1")
    late = [Kind.CONNECT]
    events.take = lambda: events.publish(late.pop()) if late else None
    with events.subscribe(ALL) as subscription:
        assert [each.kind for each in events.recent(ALL)] == [Kind.CONNECT]
        assert not subscription._waiting
