"""Names that meet: nodes that give addresses without knowing of each other come to agree."""

from __future__ import annotations

from ipaddress import IPv4Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appswitch.core import clashes, names
from appswitch.core.service_table import ServiceTable
from appswitch.model import Address, App, Listener

SMALL = IPv4Network("100.64.0.0/28")  # 14 addresses: names meet often
NAMES = [f"n{number}" for number in range(6)]
ASKED = ip_address("10.1.1.1")


class World:
    """Tables, and what they tell each other."""

    def __init__(self, *nodes: str) -> None:
        self.tables = {node: ServiceTable(node) for node in nodes}

    def tell(self, node: str) -> None:
        """The others hear what has changed there, and settle it."""
        table = self.tables[node]
        for key in sorted(table.dirty):
            for other in self.tables.values():
                if other is not table:
                    other.put_remote(node, key, table.record(key))
        table.dirty.clear()

    def settle(self) -> int:
        """Until nothing moves any more. How many times somebody was moved."""
        moves = 0
        while any(table.dirty for table in self.tables.values()):
            for node, table in self.tables.items():
                self.tell(node)
                moves += len(clashes.settle(table))
                for other in self.tables.values():
                    moves += len(clashes.settle(other))
            assert moves < 100, "it goes round in circles"
        return moves

    def resolved(self, name: str) -> Address | None:
        (ip,) = {table.resolve(name) for table in self.tables.values()}
        return ip


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "DERIVED", SMALL)


def rivals() -> tuple[str, str]:
    """Two names of one hash."""
    at: dict[Address, str] = {}
    for number in range(100):
        name = f"r{number}"
        other = at.setdefault(names.derive_ip(name, ()), name)
        if other != name:
            return other, name
    raise AssertionError


def test_the_younger_of_two_names_gives_way() -> None:
    older, younger = rivals()
    world = World("a", "b")
    kept = world.tables["b"].new_app(name=older, ip=None, started=1.0)
    lost = world.tables["a"].new_app(name=younger, ip=None, started=2.0)
    second = world.tables["a"].new_app(name=younger, ip=None, started=3.0)
    listeners = [Listener(5, lost, 4, lost.ip, 80, listening=True), Listener(6, lost, 4, ip_address("::"), 81)]
    for each in listeners:
        world.tables["a"].add_listener(each)
    world.tables["a"].drain([lost])
    assert lost.ip == kept.ip
    assert world.settle() == 2
    assert world.resolved(older) == kept.ip
    ip = world.resolved(younger)
    assert ip not in (None, kept.ip)
    table = world.tables["a"]
    assert {app.ip for app in table.own_apps()} == {ip}
    assert table.apps[second.id].ip == ip
    assert [(each.ip, each.app.ip) for each in table.listeners_of(lost)] == [(ip, ip), (ip_address("::"), ip)]
    assert table.draining == {lost.id}
    assert world.tables["b"].app_of("a", lost.number) is not None


def test_of_two_of_one_age_the_node_decides() -> None:
    """Clocks are only so exact."""
    one, other = rivals()
    world = World("a", "b")
    ips = {
        node: world.tables[node].new_app(name=name, ip=None, started=1.0).ip
        for node, name in (("a", one), ("b", other))
    }
    assert world.settle() == 1
    assert world.resolved(one) == ips["a"]


def test_a_name_with_two_addresses_stands_for_the_older() -> None:
    world = World("a", "b")
    derived = world.tables["a"].new_app(name="web", ip=None, started=2.0)
    asked = world.tables["b"].new_app(name="web", ip=ASKED, started=1.0)
    assert world.settle() == 1
    assert world.resolved("web") == ASKED
    assert world.tables["a"].apps[derived.id].ip == asked.ip, "what was derived follows"


def test_an_address_that_was_asked_for_stays() -> None:
    world = World("a", "b")
    derived = world.tables["a"].new_app(name="web", ip=None, started=1.0)
    world.tables["b"].new_app(name="web", ip=ASKED, started=2.0)
    assert world.settle() == 0
    assert world.resolved("web") == derived.ip
    assert world.tables["a"].owns(ASKED)


def test_siblings_by_choice_are_no_rivals() -> None:
    """`resolve web`, and then `spawn --ip` with that; whoever goes first."""
    table = World("a").tables["a"]
    web = table.new_app(name="web", ip=None, started=1.0)
    table.new_app(name="other", ip=web.ip, started=2.0)
    again = table.new_app(name="web", ip=None, started=3.0)
    assert clashes.settle(table) == []
    table.remove_app(web.id)
    assert clashes.settle(table) == []
    assert table.apps[again.id].ip == web.ip


def test_a_name_that_joins_one_that_was_asked_for() -> None:
    table = World("a").tables["a"]
    table.new_app(name="web", ip=ASKED)
    assert not table.new_app(name="web", ip=None).derived
    assert table.new_app(name="db", ip=None).derived
    assert table.new_app(name="db", ip=None).derived
    assert not table.new_app(name=None, ip=None).derived


APPS = st.tuples(st.sampled_from("abc"), st.sampled_from(NAMES), st.integers(0, 5), st.booleans())


@given(st.lists(APPS, max_size=14), st.lists(st.tuples(st.integers(0, 14), st.sampled_from("abc")), max_size=5))
def test_all_agree(apps: list[tuple[str, str, int, bool]], told: list[tuple[int, str]]) -> None:
    """Whatever starts where, and whoever has heard of what by then; some go, too."""
    world = World("a", "b", "c")
    made: list[App] = []
    for place, (node, name, started, _) in enumerate(apps):
        made.append(world.tables[node].new_app(name=name, ip=None, started=float(started)))
        for when, teller in told:
            if when == place:
                world.tell(teller)
    for app, (*_, ends) in zip(made, apps, strict=True):
        if ends:
            world.tables[app.node].remove_app(app.id)
    world.settle()
    for name in NAMES:
        ip = world.resolved(name)
        for table in world.tables.values():
            assert {app.ip for app in table.apps.values() if app.name == name} == ({ip} - {None})
            assert {app.name for app in table.apps_at(ip)} <= {name} if ip else True
