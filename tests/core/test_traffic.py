"""Traffic: every event is counted once, rates are what they say, and there are never more edges than may be."""

from __future__ import annotations

import math
from collections import Counter
from ipaddress import IPv4Address
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appswitch.core.traffic import GONE_AFTER, OVER, Edge, End, Key, Rate, Traffic
from appswitch.model import Address, App, Connection, Event, Kind, State

APPS = [App(number, IPv4Address(f"10.0.0.{number}"), "n1", name=f"app{number}") for number in range(1, 5)]
WEB, DB = APPS[:2]
OUTSIDE = IPv4Address("192.0.2.1")


def event(kind: Kind = Kind.CONNECT, time: float = 0.0, **facts: Any) -> Event:
    known: dict[str, Any] = {
        "app": WEB,
        "server": DB,
        "address": DB.ip,
        "port": 5432,
        "proto": "tcp",
        "medium": "unix",
        **facts,
    }
    return Event(time, kind, "n1", **known)


def noted(*events: Event, now: float = 0.0) -> list[Edge]:
    traffic = Traffic()
    for each in events:
        traffic.note(each)
    return list(traffic.edges(now))


events = st.builds(
    event,
    st.sampled_from([*Kind]),
    st.floats(0, 1e6),
    app=st.sampled_from(APPS),
    server=st.sampled_from([*APPS, None]),
    port=st.integers(1, 3),
)


@given(st.lists(events))
def test_every_event_is_counted_once(given_events: list[Event]) -> None:
    edges = noted(*given_events)
    kinds = Counter(each.kind for each in given_events)
    assert sum(each.connects for each in edges) == kinds[Kind.CONNECT]
    assert sum(each.denied for each in edges) == kinds[Kind.DENY]
    assert sum(each.refused for each in edges) == kinds[Kind.REFUSE]
    assert len({each.key for each in edges}) == len(edges)


@given(st.lists(events), st.integers(1, 5))
def test_there_are_never_more_edges_than_may_be_and_the_newest_stay(given_events: list[Event], most: int) -> None:
    bounded, free = Traffic(most=most), Traffic()
    for each in given_events:
        bounded.note(each)
        free.note(each)
    kept = [each.key for each in bounded.edges(0.0)]
    assert len(kept) <= most
    assert kept == [each.key for each in free.edges(0.0)][-most:]


@given(st.lists(st.floats(0, 1e5), min_size=1), st.floats(0, 1e5))
def test_a_rate_is_bounded_by_what_has_happened(times: list[float], later: float) -> None:
    """Also where the clock is set back."""
    rate = Rate()
    for each in times:
        rate.add(1, each)
    assert 0 <= rate.at(max(times) + later) <= rate.at(max(times)) <= len(times) / OVER + 1e-9
    assert rate.total == len(times)


@pytest.mark.parametrize("wanted", [0.5, 3.0, 200.0])
def test_a_steady_rate_is_told_as_it_is(wanted: float) -> None:
    rate = Rate()
    for number in range(int(wanted * OVER * 10)):
        rate.add(1, number / wanted)
    assert rate.at(OVER * 10) == pytest.approx(wanted, rel=0.2)
    assert rate.at(OVER * 20) < wanted / 1000


@given(st.lists(st.tuples(st.integers(1, 1000), st.floats(0, 100)), min_size=1))
def test_many_at_once_are_as_many_one_by_one(batches: list[tuple[int, float]]) -> None:
    batches.sort(key=lambda each: each[1])
    at_once, singly = Rate(), Rate()
    for count, now in batches:
        at_once.add(count, now)
        for _ in range(count):
            singly.add(1, now)
    assert at_once.total == singly.total
    assert math.isclose(at_once.at(100), singly.at(100), rel_tol=1e-6, abs_tol=1e-12)


def test_what_an_edge_tells() -> None:
    (edge,) = noted(
        event(time=1.0),
        event(Kind.AUDIT, 1.0),
        event(Kind.DENY, 2.0, medium=None, rule="no-db"),
        event(Kind.REFUSE, 3.0, medium=None),
        now=3.0,
    )
    assert edge.key == Key(End("app1", WEB.ip, "n1", 1), End("app2", DB.ip, "n1", 2), 5432, "tcp")
    assert (edge.connects, edge.denied, edge.refused) == (1, 1, 1)
    assert (edge.medium, edge.rule, edge.last) == ("unix", "no-db", 3.0)
    assert 0 < edge.rate < edge.denied_rate


def test_counted_connects_are_of_the_same_edge() -> None:
    traffic = Traffic()
    traffic.note(event())
    traffic.count(WEB, DB, 5432, 41, 5.0)
    (edge,) = traffic.edges(5.0)
    assert (edge.connects, edge.medium, edge.last) == (42, "unix", 5.0)


def test_a_server_outside_is_its_address() -> None:
    (edge,) = noted(event(server=None, address=OUTSIDE, port=443, medium="tcp"))
    assert edge.key.server == End(None, OUTSIDE)


@pytest.mark.parametrize("facts", [{"app": None}, {"medium": "dns"}, {"port": None}])
def test_no_edges(facts: dict[str, Any]) -> None:
    assert not noted(event(**facts))


def test_any_number_of_clients_outside_leaves_the_apps_edges() -> None:
    traffic = Traffic(most=10, most_outside=5)
    traffic.note(event())
    for number in range(100):
        source = (IPv4Address(0xC0000200 + number), 1)
        traffic.note(event(app=None, source=source, medium="tcp"))
    clients = [each.key.client for each in traffic.edges(0.0)]
    assert clients == [*(End(None, IPv4Address(0xC0000200 + number)) for number in range(95, 100)), End.of(WEB, None)]


def connection(client: App = WEB, server: App | None = DB, dest: Address = DB.ip, port: int = 5432) -> Connection:
    listener = None
    return Connection(client, (client.ip, 40000), (dest, port), server, listener, "n1", State.ESTABLISHED)


def test_open_connections() -> None:
    """Of an edge that is known, and of one that isn't; where an end has gone it can't be told whose it was."""
    traffic = Traffic()
    traffic.note(event())
    lost = Connection(None, None, None, DB, None, "n1", State.CLOSING)
    open_ones = [connection(), connection(), connection(DB, WEB, WEB.ip, 80), lost]
    edges = {each.key.client.name: each for each in traffic.edges(0.0, open_ones)}
    assert (edges["app1"].open, edges["app1"].connects) == (2, 1)
    assert (edges["app2"].open, edges["app2"].connects, edges["app2"].medium) == (1, 0, "unix")


def test_edges_of_apps_that_have_ended_are_forgotten_after_a_while() -> None:
    traffic = Traffic()
    traffic.note(event(time=100.0))
    assert list(traffic.edges(100.0 + GONE_AFTER, lives=lambda _: False))
    assert list(traffic.edges(200.0 + GONE_AFTER, lives=lambda _: True))
    assert not list(traffic.edges(101.0 + GONE_AFTER, lives=lambda end: end.name != "app2"))
    assert not list(traffic.edges(100.0))


def test_the_newest_come_last() -> None:
    edges = noted(event(time=1.0, port=1), event(time=2.0, port=2), event(time=3.0, port=1))
    assert [each.key.port for each in edges] == [2, 1]
    assert all(one.last <= other.last for one, other in pairwise(edges) if one.last and other.last)
