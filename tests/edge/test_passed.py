"""Connections that have gone by lanes: each gets its name, and is told of once to whoever counts or looks on."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

import pytest

from appswitch.core.service_table import ServiceTable
from appswitch.edge.events import RECENT, Events, Filter
from appswitch.edge.passed import Passed
from appswitch.edge.tcp_names import TcpNames
from appswitch.model import Event, Kind, Listener
from appswitch.wire import socknames

LANE, MANY = 7, RECENT + 24
CLIENT, GATEWAY = IPv4Address("192.0.2.1"), IPv4Address("10.0.0.1")


def entry(number: int, lane: int = LANE) -> bytes:
    """A struct as_lane_entry."""
    name = socknames.client_name(0, (CLIENT, number), (GATEWAY, 80), 4, 4, 0, socknames.Medium.TCP_SERVER)
    return struct.pack("=QQ52s4x", number, lane, name)


@pytest.fixture
async def passed() -> Passed:
    table = ServiceTable("n1")
    app = table.new_app(name="web", ip=None)
    listener = Listener(table.next_listener_id(), app, 4, IPv4Address(0), 80, listening=True)
    made = Passed(TcpNames(), Events("n1"))
    made.opened(LANE, listener, "exposed")
    return made


async def test_who_counts_hears_of_all(passed: Passed) -> None:
    """Also of more at once than there is room for among the recent events."""
    told: list[Event] = []
    passed.events.taps.append(told.append)
    with passed.events.subscribe(Filter(), passive=True) as looking_on:
        assert passed.take(b"".join(map(entry, range(1, MANY + 1)))) == {LANE}
        assert [each.source for each in told] == [(CLIENT, number) for number in range(1, MANY + 1)]
        seen = await looking_on.batch()
    assert len(seen) == MANY
    assert {(each.kind, each.rule, each.address, each.port) for each in told} == {
        (Kind.CONNECT, "exposed", GATEWAY, 80)
    }


async def test_what_nobody_looks_at_is_among_the_recent_events(passed: Passed) -> None:
    passed.take(b"".join(map(entry, range(1, MANY + 1))))
    recent = passed.events.recent(Filter())
    assert [each.source for each in recent] == [(CLIENT, number) for number in range(MANY - RECENT + 1, MANY + 1)]


async def test_a_lane_that_nobody_knows(passed: Passed) -> None:
    assert passed.take(entry(1, lane=8)) == {8}
    assert passed.events.recent(Filter()) == []
