"""The service table, against a model that is nothing but lists."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address

import pytest
from attrs import evolve
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from appswitch.core import names
from appswitch.core.service_table import ServiceTable
from appswitch.errors import AppSwitchError
from appswitch.model import Address, App, Listener

NAMES = ["web", "db", "cache"]
IPS: list[Address] = [ip_address("10.1.1.1"), ip_address("10.1.1.2"), ip_address("fd00::1"), names.derive_ip("web", ())]
PORTS = [80, 443]


def listener_of(table: ServiceTable, app: App, port: int, ip: Address | None = None) -> Listener:
    return Listener(id=table.next_listener_id(), app=app, family=app.ip.version, ip=ip or app.ip, port=port)


class TableAgainstLists(RuleBasedStateMachine):
    """What a list of apps and a list of listeners say, the table's indexes say too."""

    apps: Bundle[App] = Bundle("apps")
    gone: Bundle[App] = Bundle("gone")
    listeners: Bundle[Listener] = Bundle("listeners")

    @initialize()
    def start(self) -> None:
        self.table = ServiceTable("n1")
        self.live: list[App] = []
        self.bound: list[Listener] = []
        self.listening: set[int] = set()
        self.seen_apps: set[int] = set()
        self.seen_listeners: set[int] = set()
        self.retired: set[Address] = set()

    @rule(target=apps, name=st.none() | st.sampled_from(NAMES), ip=st.none() | st.sampled_from(IPS))
    def new_app(self, name: str | None, ip: Address | None) -> App | MultipleResults[App]:
        known = next((app.ip for app in self.live if app.name == name), None) if name else None
        if known and ip and known != ip:
            with pytest.raises(AppSwitchError) as error:
                self.table.new_app(name=name, ip=ip)
            assert error.value.reason == "name-taken"
            return multiple()
        others = {app.ip for app in self.live}
        app = self.table.new_app(name=name, ip=ip)
        assert app.id not in self.seen_apps
        assert app.node == "n1"
        if ip or known:
            assert app.ip == (ip or known)
        elif name:
            assert app.ip in names.DERIVED
            assert app.ip not in others
        else:
            assert app.ip.is_link_local
            assert not app.reachable
        self.live.append(app)
        self.seen_apps.add(app.id)
        self.retired.discard(app.ip)
        return app

    @rule(target=gone, app=consumes(apps))
    def remove_app(self, app: App) -> App:
        self.table.remove_app(app.id)
        self.live.remove(app)
        self.bound = [each for each in self.bound if each.app.id != app.id]
        if all(each.ip != app.ip for each in self.live):
            self.retired.add(app.ip)
        return app

    @rule(target=apps, app=consumes(gone))
    def revive(self, app: App) -> App | MultipleResults[App]:
        if any(each.name == app.name and each.ip != app.ip for each in self.live if app.name):
            return multiple()  # its name stands for another address by now: see the report
        self.table.revive(app)
        self.live.append(app)
        self.retired.discard(app.ip)
        return app

    @rule(target=listeners, app=apps, port=st.sampled_from(PORTS), loopback=st.booleans())
    def bind(self, app: App, port: int, loopback: bool) -> Listener | MultipleResults[Listener]:
        if app not in self.live:
            return multiple()
        listener = listener_of(self.table, app, port, ip_address("127.0.0.1") if loopback else None)
        assert listener.id not in self.seen_listeners
        self.seen_listeners.add(listener.id)
        self.table.add_listener(listener)
        self.bound.append(listener)
        return listener

    @rule(listener=listeners)
    def listen(self, listener: Listener) -> None:
        if listener in self.bound:
            assert self.table.mark_listening(listener.id) == evolve(listener, listening=True)
            self.listening.add(listener.id)

    @rule(listener=consumes(listeners))
    def close(self, listener: Listener) -> None:
        if listener in self.bound:
            self.table.remove_listener(listener.id)
            self.bound.remove(listener)

    @invariant()
    def names_agree(self) -> None:
        for name in NAMES:
            assert self.table.resolve(name) == next((app.ip for app in self.live if app.name == name), None)
        for ip in IPS:
            assert set(self.table.names_of(ip)) == {app.name for app in self.live if app.ip == ip and app.name}
            assert len(self.table.names_of(ip)) == len(set(self.table.names_of(ip)))

    @invariant()
    def addresses_agree(self) -> None:
        for ip in {*IPS, *(app.ip for app in self.live), *self.retired}:
            assert self.table.owns(ip) == any(app.ip == ip and not ip.is_link_local for app in self.live)
            if not ip.is_link_local:
                assert self.table.was_owned(ip) == (ip in self.retired or ip in names.DERIVED)

    @invariant()
    def listeners_agree(self) -> None:
        assert set(self.table.apps.values()) == set(self.live)
        assert set(self.table.listeners) == {each.id for each in self.bound}
        served = list(self.table.services())
        listening = [each for each in self.bound if each.id in self.listening]
        instances = {(each.app.id, each.port, each.scope) for each in listening}
        assert {each.id for each in served} <= {each.id for each in listening}
        assert sorted((each.app.id, each.port, each.scope.value) for each in served) == sorted(
            (app_id, port, scope.value) for app_id, port, scope in instances
        )
        keys = [(each.app.ip.version, each.app.ip.packed, each.port) for each in served]
        assert keys == sorted(keys)
        for ip in {app.ip for app in self.live} | set(IPS):
            for port in PORTS:
                found = {each.id for each in self.table.at_port(ip, port)}
                assert found == {each.id for each in self.bound if (each.app.ip, each.port) == (ip, port)}


TestTableAgainstLists = TableAgainstLists.TestCase
TestTableAgainstLists.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_client_only_apps_never_share_an_identity() -> None:
    """They would share loopback and a port space: "what it binds is private to itself"."""
    table = ServiceTable("n1")
    first = table.new_app(name=None, ip=None)
    for _ in range(0xFE00 + 10):  # as many as there are link-local addresses, and some more
        app = table.new_app(name=None, ip=None)
        assert app.ip != first.ip
        table.remove_app(app.id)


def test_client_only_apps_leave_the_memory_of_addresses_alone() -> None:
    """No one can have connected to them, so there is nothing to remember."""
    table = ServiceTable("n1")
    table.remove_app(table.new_app(name=None, ip=IPS[0]).id)
    for _ in range(70000):
        table.remove_app(table.new_app(name=None, ip=None).id)
    for number in range(5000):
        table.remove_app(table.new_app(name=None, ip=IPv4Address(0x0B000000 + number)).id)
    assert table.was_owned(IPS[0])


def test_an_address_comes_and_goes_with_the_last_app() -> None:
    table = ServiceTable("n1")
    one, two = table.new_app(name="a", ip=IPS[0]), table.new_app(name="b", ip=IPS[0])
    assert table.names_of(IPS[0]) == ["a", "b"]
    table.remove_app(one.id)
    assert table.owns(IPS[0])
    assert table.resolve("a") is None
    table.remove_app(two.id)
    assert not table.owns(IPS[0])
    assert table.was_owned(IPS[0])


def test_a_name_alone_joins_the_app_that_has_it() -> None:
    table = ServiceTable("n1")
    assert table.new_app(name="web", ip=IPS[0]).ip == table.new_app(name="web", ip=None).ip == IPS[0]


def test_a_derived_address_evades_one_that_somebody_has() -> None:
    table = ServiceTable("n1")
    other = table.new_app(name="other", ip=names.derive_ip("web", ()))
    assert table.new_app(name="web", ip=None).ip != other.ip


def test_an_address_that_is_asked_for_joins_whoever_has_it() -> None:
    """Also where theirs was derived: `resolve web`, and then `spawn --ip` with that, is how one becomes a sibling."""
    table = ServiceTable("n1")
    web = table.new_app(name="web", ip=None)
    other = table.new_app(name="other", ip=web.ip)
    assert other.ip == web.ip
    assert table.names_of(web.ip) == ["web", "other"]
    table.remove_app(web.id)
    again = table.new_app(name="web", ip=None)
    assert again.ip not in (web.ip, None), "its address is other's now"
    assert table.resolve("web") == again.ip
    assert table.resolve("other") == other.ip


def test_two_names_of_one_hash_get_two_addresses_whoever_comes_first() -> None:
    """And keep them while they live."""
    first, second = names.derive_ip("web", ()), names.derive_ip("web", [names.derive_ip("web", ())])
    table = ServiceTable("n1")
    rival = table.new_app(name="rival", ip=first)
    web = table.new_app(name="web", ip=None)
    assert web.ip == second
    table.remove_app(rival.id)
    assert table.new_app(name="web", ip=None).ip == second


def test_a_name_is_free_once_its_last_app_has_gone() -> None:
    table = ServiceTable("n1")
    one, two = table.new_app(name="web", ip=IPS[0]), table.new_app(name="web", ip=None)
    table.remove_app(one.id)
    with pytest.raises(AppSwitchError) as error:
        table.new_app(name="web", ip=IPS[1])
    assert str(IPS[0]) in error.value.message
    assert str(IPS[0]) in error.value.hint
    table.remove_app(two.id)
    assert table.resolve("web") is None
    assert table.new_app(name="web", ip=IPS[1]).ip == table.resolve("web") == IPS[1]
