"""The service table with what other nodes say in it."""

from __future__ import annotations

import errno
from ipaddress import ip_address

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from appswitch.core import names, route
from appswitch.core.balance import weight_of
from appswitch.core.policy import Policy
from appswitch.core.route import Reach, Refuse
from appswitch.core.service_table import REMOTE, ServiceTable
from appswitch.errors import AppSwitchError
from appswitch.model import (
    Address,
    App,
    AppRecord,
    AppState,
    Expose,
    Exposure,
    GatewayRecord,
    Listener,
    ListenerRecord,
    Record,
)

V4 = ip_address("10.1.1.1")
WEB = App(1, V4, "b", "web")


class World:
    def __init__(self) -> None:
        self.table = ServiceTable("a")

    def told(self, node: str, number: int = 1, ip: Address = V4, *ports: int, draining: bool = False) -> App:
        """An app of another node, and its listeners."""
        self.table.put_remote(node, str(number), AppRecord(App(number, ip, node, "web"), draining))
        for port in ports:
            self.table.put_remote(node, f"{number}/{port}", ListenerRecord(port, 4, ip, port))
        app = self.table.app_of(node, number)
        assert app is not None
        return app

    def serve(self, port: int = 80) -> Listener:
        """An app of ours that listens."""
        app = self.table.new_app(name="web", ip=V4)
        listener = Listener(self.table.next_listener_id(), app, 4, V4, port, listening=True)
        self.table.add_listener(listener)
        return listener

    def nodes_reached(self, client: App, port: int = 80) -> set[str]:
        plan = route.plan_connect(self.table, Policy(), client, V4, port, gateway=False)
        return {each.app.node for each in plan.candidates} if isinstance(plan, Reach) else set()


@pytest.fixture
def world() -> World:
    return World()


def test_an_app_of_another_node_has_an_id_here_and_its_number(world: World) -> None:
    own = world.serve().app
    first, second = world.told("b", own.id, V4, 80), world.told("c", own.id, V4, 80)
    assert len({own.id, first.id, second.id}) == 3
    assert own.number == first.number == second.number
    assert [world.table.is_local(app) for app in (own, first, second)] == [True, False, False]
    assert [world.table.label(app) for app in (own, first, second)] == ["1", "b/1", "c/1"]
    assert [each.number for each in world.table.listeners_of(first)] == [80]
    assert min(first.id, *world.table.listeners.keys() - {1}) > REMOTE


def test_who_is_called(world: World) -> None:
    b, own, c = world.told("b"), world.serve().app, world.told("c")
    assert world.table.apps_called("1") == world.table.apps_called("a/1") == [own]
    assert world.table.apps_called("c/1") == [c]
    assert world.table.apps_called("web") == world.table.apps_called(str(V4)) == [own, b, c]
    assert world.table.apps_called("d/1") == world.table.apps_called(str(b.id)) == []


def test_instances_on_all_nodes_are_one_service(world: World) -> None:
    client = world.table.new_app(name="client", ip=None)
    world.told("b", 1, V4, 80)
    assert world.nodes_reached(client) == {"b"}
    own = world.serve()
    assert world.nodes_reached(client) == {"a", "b"}
    world.table.remove_app(own.app.id)
    assert world.nodes_reached(client) == {"b"}
    world.table.put_remote("b", "1/80", None)
    assert world.nodes_reached(client) == set()
    world.table.put_remote("b", "1", None)
    assert not world.table.owns(V4)
    assert world.table.was_owned(V4)


def test_draining_and_what_doesn_t_answer(world: World) -> None:
    client = world.table.new_app(name="client", ip=None)
    b, c = world.told("b", 1, V4, 80), world.told("c", 1, V4, 80)
    world.table.unreachable = {"b"}
    assert world.nodes_reached(client) == {"c"}
    assert [world.table.state_of(app) for app in (b, c)] == [AppState.SUSPECT, AppState.UP]
    c = world.told("c", 1, V4, 80, draining=True)
    assert world.table.state_of(c) == AppState.DRAINING
    assert world.nodes_reached(client) == {"b"}, "better than nothing"
    world.told("c", 1, V4, 80)
    assert world.nodes_reached(client) == {"c"}


def test_an_exclusive_one_elsewhere(world: World) -> None:
    app = world.table.new_app(name=None, ip=V4)
    world.told("b", 1, V4, 80)
    exclusive = evolve(app, exclusive=True)
    plan = route.plan_bind(world.table, exclusive, route.BindRequest(4, V4, 80), None)  # type: ignore[arg-type]
    assert isinstance(plan, Refuse)
    assert (plan.error, plan.reason) == (errno.EADDRINUSE, "port 80 is taken by app b/1")


def test_a_client_alone_shares_its_address_with_nobody(world: World) -> None:
    """And so neither its loopback nor its ports."""
    first = world.table.new_app(name=None, ip=None)
    assert ServiceTable("b").new_app(name=None, ip=None).ip != first.ip, "nodes begin at different ones"
    theirs = world.told("b", 2, names.link_local("a", 2))
    second = world.table.new_app(name=None, ip=None)
    assert second.ip != theirs.ip


def test_link_local_addresses_that_run_out(world: World) -> None:
    for number in range(names.LINK_LOCALS):
        world.told("b", number, names.link_local("b", number))
    ours = {world.table.new_app(name=None, ip=None).ip for _ in range(10)}
    assert len(ours) == 10


def test_the_entries_of_ours_that_the_others_have_to_hear_of(world: World) -> None:
    listener = world.serve()
    app, table = listener.app, world.table
    assert table.dirty == {"1", "1/1"}
    assert table.record("1") == AppRecord(app)
    assert table.record("1/1") == ListenerRecord(1, 4, V4, 80)
    table.dirty.clear()
    table.drain([app])
    assert (table.dirty, table.record("1")) == ({"1"}, AppRecord(app, draining=True))
    table.drain([app], False)
    assert table.record("1") == AppRecord(app)
    table.dirty.clear()
    table.remove_app(app.id)
    assert table.dirty == {"1", "1/1"}
    assert table.record("1") is table.record("1/1") is None
    table.dirty.clear()
    world.told("b", 1, V4, 80)
    table.forget_node("b")
    assert not table.dirty, "others say that themselves"


def test_what_gateways_have_opened(world: World) -> None:
    opened = GatewayRecord(Exposure(V4, 80, 8080), ((ip_address("192.0.2.1"), 8080),))
    failed = evolve(opened, places=(), error="port 8080 is taken")
    world.table.put_gateway("a", "g1", opened)
    assert (world.table.dirty, world.table.record("g1")) == ({"g1"}, opened)
    world.table.dirty.clear()
    world.table.put_remote("b", "g1", failed)
    assert world.table.gateways == {"a": {"g1": opened}, "b": {"g1": failed}}
    world.table.put_remote("b", "g1", None)
    world.table.put_remote("b", "g2", None)
    assert world.table.gateways == {"a": {"g1": opened}}
    world.table.put_remote("b", "g3", failed)
    world.table.forget_node("b")
    assert world.table.gateways == {"a": {"g1": opened}}
    assert not world.table.dirty, "others say that themselves"
    world.table.put_gateway("a", "g1", None)
    assert (world.table.dirty, world.table.record("g1")) == ({"g1"}, None)


def test_apps_that_are_exposed_are_known_as_such(world: World) -> None:
    table = world.table
    app = table.new_app(name="web", ip=V4, exposes=(Expose(80),))
    table.put_remote("b", "1", AppRecord(evolve(WEB, exposes=(Expose(80, 8080),))))
    table.put_remote("c", "1", AppRecord(WEB))
    assert {each.node for each in table.exposing.values()} == {"a", "b"}
    table.put_remote("b", "1", None)
    table.remove_app(app.id)
    assert not table.exposing


def test_what_nobody_could_reach_isn_t_told(world: World) -> None:
    client = world.table.new_app(name=None, ip=None)
    world.table.add_listener(Listener(7, client, 4, ip_address("0.0.0.0"), 80, listening=True))
    bound = Listener(8, world.serve().app, 4, V4, 81)
    world.table.add_listener(bound)
    assert world.table.record(f"{client.number}/7") is None
    assert world.table.record(f"{bound.app.number}/8") is None
    world.table.mark_listening(8)
    assert world.table.record(f"{bound.app.number}/8") is not None


ENTRIES: dict[str, list[Record]] = {
    "1": [AppRecord(WEB), AppRecord(WEB, draining=True), AppRecord(evolve(WEB, ip=ip_address("10.1.1.2")))],
    "1/5": [ListenerRecord(5, 4, V4, 80)],
    "1/6": [ListenerRecord(6, 4, V4, 81), ListenerRecord(6, 4, V4, 82)],
    "2": [AppRecord(evolve(WEB, id=2, number=2, name=None))],
    "2/7": [ListenerRecord(7, 4, V4, 80)],
}
SAID = st.sampled_from(sorted(ENTRIES)).flatmap(
    lambda key: st.tuples(st.sampled_from(["b", "c"]), st.just(key), st.none() | st.sampled_from(ENTRIES[key]))
)


def content(table: ServiceTable) -> set[object]:
    apps = {(app.node, app.number, app.ip, app.name, app.id in table.draining) for app in table.apps.values()}
    listeners = {(each.app.node, each.app.ip, each.number, each.port) for each in table.listeners.values()}
    found = {each.id for app in table.apps.values() for each in table.listeners_of(app)}
    assert found == set(table.listeners)
    assert {each.id for each in table.services()} <= found
    assert {each.id for app in table.apps.values() for each in table.at_port(app.ip, 80)} <= found
    return apps | listeners


@given(st.lists(SAID, max_size=25), st.randoms(use_true_random=False))
def test_only_what_was_said_last_counts_and_in_no_order(
    said: list[tuple[str, str, Record | None]], rng: object
) -> None:
    one, other = ServiceTable("a"), ServiceTable("a")
    last: dict[tuple[str, str], Record | None] = {}
    for node, key, record in said:
        one.put_remote(node, key, record)
        last[node, key] = record
    ids = {(each.app.node, each.number): each.id for each in one.listeners.values()}
    order = list(last.items())
    rng.shuffle(order)  # type: ignore[attr-defined]
    for (node, key), record in order:
        other.put_remote(node, key, record)
    assert content(one) == content(other)
    one.put_remote("b", "1", ENTRIES["1"][0])
    after = {(each.app.node, each.number): each.id for each in one.listeners.values()}
    assert after.items() >= ids.items(), "a listener that stays keeps its id"
    for node in ("b", "c"):
        one.forget_node(node)
    assert not content(one)
    assert not one._told
    assert not one._by_ip


def test_an_app_with_many_listeners() -> None:
    """Each is a step, whatever there is already: who serves on thousands of ports must not hold up the other nodes."""
    steps = 0

    class Counting(ServiceTable):
        def add_listener(self, listener: Listener) -> None:
            nonlocal steps
            steps += 1
            super().add_listener(listener)

    table = Counting("a")
    table.put_remote("b", "1", AppRecord(WEB))
    for port in range(1, 1001):
        table.put_remote("b", f"1/{port}", ListenerRecord(port, 4, V4, port))
    for port in range(1, 1001):
        table.put_remote("b", f"1/{port}", None)
    assert steps == 1000
    assert not list(table.services())


@pytest.mark.parametrize(
    "app",
    [
        evolve(WEB, name="web\n\x1b[2J"),
        evolve(WEB, name="x" * 64),
        evolve(WEB, name="localhost"),
        evolve(WEB, ip=ip_address("127.0.0.1")),
        evolve(WEB, ip=ip_address("0.0.0.0")),
        evolve(WEB, ip=ip_address("224.0.0.1")),
        evolve(WEB, started=float("nan")),
    ],
)
def test_an_app_that_no_node_would_have(world: World, app: App) -> None:
    with pytest.raises(AppSwitchError):
        world.table.put_remote("b", "1", AppRecord(app))
    assert world.table.app_of("b", 1) is None


def test_a_weight_of_many_digits(world: World) -> None:
    assert weight_of(evolve(WEB, tags=(("weight", "9" * 5000),))) == 1


def test_a_node_alone_keeps_nothing_to_tell() -> None:
    table = ServiceTable("a", alone=True)
    table.remove_app(table.new_app(name="web", ip=None).id)
    assert table.dirty == set()
