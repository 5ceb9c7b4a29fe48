"""Exposing: what is written, which gateway is meant, and who has a port that two want."""

from __future__ import annotations

import errno
from ipaddress import ip_address, ip_network

import pytest
from attrs import evolve

from appswitch.core.exposing import CHOICE, Gateway, choice_of_ports, parse_expose
from appswitch.core.policy import Action, Default, Policy, Rule, Selector, Verdict
from appswitch.core.route import Judged, Reach, Refuse
from appswitch.core.service_table import ServiceTable
from appswitch.errors import AppSwitchError
from appswitch.model import Address, App, AppRecord, Expose, Exposure, Listener, ListenerRecord, Node

WEB = ip_address("10.1.1.1")
DB = ip_address("10.1.1.2")
EXPOSURE = Exposure(WEB, 80, 8080)

Pair = tuple[Address, int]
CLIENT: Pair = ip_address("198.51.100.7"), 40000


def owns(ip: Address) -> bool:
    return str(ip) in ("192.0.2.1", "2001:db8::1")


GATEWAY = Gateway(Node("gw1", gateway=True, address="10.0.0.1", port=7947), owns)


@pytest.mark.parametrize(
    ("text", "expose"),
    [
        ("80", Expose(80)),
        ("80/tcp", Expose(80)),
        ("80:8080", Expose(80, 8080)),
        ("80:10.0.0.1:8080", Expose(80, 8080, "10.0.0.1")),
        ("80:[2001:DB8:0::1]:8080", Expose(80, 8080, "2001:db8::1")),
        ("80:Gw-1:8080", Expose(80, 8080, "Gw-1")),
        ("80/proxy", Expose(80, proxy=True)),
        ("80:8080/proxy", Expose(80, 8080, proxy=True)),
        ("65535:gw:1/proxy", Expose(65535, 1, "gw", proxy=True)),
    ],
)
def test_what_can_be_written(text: str, expose: Expose) -> None:
    assert parse_expose(text) == expose


@pytest.mark.parametrize(
    "text",
    ["", "http", "0", "65536", "80:", "80:0", "80:99999", ":80", "80:gw:", "80::8080", "80:[::1:8080",
     "80:2001:db8::1:80", "80:8080/sctp", "80:8080/", "-1", " 80", "80\n", "8\u0660",
     "80:8080/proxy/proxy", "80:gw:8080:1"],
)  # fmt: skip
def test_what_can_not(text: str) -> None:
    with pytest.raises(AppSwitchError) as caught:
        parse_expose(text)
    assert caught.value.reason == "bad-expose"
    assert caught.value.hint


@pytest.mark.parametrize("text", ["53/udp", "53:53/udp", "53:gw1:53/udp"])
def test_udp_is_not_let_in(text: str) -> None:
    with pytest.raises(AppSwitchError, match="TCP only"):
        parse_expose(text)


@pytest.mark.parametrize(
    ("gateway", "meant"),
    [
        (None, True),
        ("gw1", True),
        ("10.0.0.1", True),
        ("192.0.2.1", True),
        ("2001:db8::1", True),
        ("gw2", False),
        ("10.0.0.2", False),
    ],
)
def test_which_gateway_is_meant(gateway: str | None, meant: bool) -> None:
    assert GATEWAY.is_meant(Expose(80, 8080, gateway)) is meant


def test_a_host_by_itself_has_no_address_of_the_cluster() -> None:
    assert not Gateway(Node("alone", gateway=True), owns).is_meant(Expose(80, 8080, "None"))


def test_apps_that_expose_one_service_are_one_exposure() -> None:
    table = ServiceTable("gw1")
    for _ in range(2):
        table.new_app(name="web", ip=WEB, exposes=(Expose(80, 8080), Expose(443)))
    assert list(GATEWAY.exposures(table)) == [(Exposure(WEB, 80, 8080), None), (Exposure(WEB, 443), None)]


def test_who_was_first_has_the_port() -> None:
    table = ServiceTable("gw1")
    table.new_app(name="db", ip=DB, exposes=(Expose(5432, 8080),), started=2.0)
    first = table.new_app(name="web", ip=WEB, exposes=(Expose(80, 8080),), started=1.0)
    web, db = Exposure(WEB, 80, 8080), Exposure(DB, 5432, 8080)
    assert list(GATEWAY.exposures(table)) == [(web, None), (db, web)]
    table.remove_app(first.id)
    assert list(GATEWAY.exposures(table)) == [(db, None)]


def test_ports_that_the_gateway_chooses_meet_nobody() -> None:
    table = ServiceTable("gw1")
    table.new_app(name="db", ip=DB, exposes=(Expose(80),))
    table.new_app(name="web", ip=WEB, exposes=(Expose(80),))
    assert [owner for _, owner in GATEWAY.exposures(table)] == [None, None]


def test_what_is_for_another_gateway() -> None:
    table = ServiceTable("gw1")
    table.new_app(name="web", ip=WEB, exposes=(Expose(80, 8080, "gw2"),))
    assert not list(GATEWAY.exposures(table))
    assert list(Gateway(Node("gw2"), owns).exposures(table)) == [(Exposure(WEB, 80, 8080), None)]


def test_how_an_app_exposes_it() -> None:
    exposes = (Expose(80, 8080), Expose(80, 8081, "gw2"), Expose(80, 8081, "gw1", proxy=True))
    app = ServiceTable("a").new_app(name="web", ip=WEB, exposes=exposes)
    assert GATEWAY.expose_of(app, Exposure(WEB, 80, 8081)) == exposes[2]
    assert GATEWAY.expose_of(app, Exposure(WEB, 80)) is None
    assert GATEWAY.expose_of(app, Exposure(DB, 80, 8080)) is None


class World:
    """Apps that serve port 80, some of them exposed at 8080."""

    def __init__(self) -> None:
        self.table = ServiceTable("gw1")

    def serve(self, *exposes: Expose, ip: str = "0.0.0.0", family: int = 4, v6only: bool = False) -> Listener:
        app = self.table.new_app(name="web", ip=WEB, exposes=exposes)
        number = self.table.next_listener_id()
        listener = Listener(number, app, family, ip_address(ip), 80, v6only, listening=True)
        self.table.add_listener(listener)
        return listener

    def taking(self, client: Pair = CLIENT) -> set[int]:
        plan = GATEWAY.plan_ingress(self.table, Policy(), EXPOSURE, client)
        return {each.id for each in plan.candidates} if isinstance(plan, Reach) else set()


@pytest.fixture
def world() -> World:
    return World()


def test_only_those_that_expose_it_are_its_instances(world: World) -> None:
    exposed = world.serve(Expose(80, 8080))
    world.serve(Expose(80, 8081))
    world.serve(Expose(80, 8080, "gw2"))
    world.serve()
    assert world.taking() == {exposed.id}


def test_a_client_comes_from_where_it_is(world: World) -> None:
    exposed = world.serve(Expose(80, 8080))
    plan = GATEWAY.plan_ingress(world.table, Policy(default=Default.DENY), EXPOSURE, CLIENT)
    assert plan == Reach(*CLIENT, (exposed,), (Judged(exposed, Verdict(True, "exposed")),))


def test_policy_may_say_no(world: World) -> None:
    world.serve(Expose(80, 8080))
    there = Selector(cidrs=(ip_network("198.51.100.0/24"),))
    policy = Policy((Rule("no", Action.DENY, there, ports=(range(80, 81),)), Rule("seen", Action.AUDIT)))
    plan = GATEWAY.plan_ingress(world.table, policy, EXPOSURE, CLIENT)
    assert isinstance(plan, Refuse)
    assert (plan.error, plan.denied, plan.rule) == (errno.ECONNREFUSED, True, "no")
    other = GATEWAY.plan_ingress(world.table, policy, EXPOSURE, (ip_address("203.0.113.1"), 40000))
    assert isinstance(other, Reach)
    assert other.audited


def test_nothing_listens(world: World) -> None:
    app = world.table.new_app(name="web", ip=WEB, exposes=(Expose(80, 8080),))
    world.table.add_listener(Listener(world.table.next_listener_id(), app, 4, ip_address("0.0.0.0"), 80))
    plan = GATEWAY.plan_ingress(world.table, Policy(), EXPOSURE, CLIENT)
    assert isinstance(plan, Refuse)
    assert (plan.error, plan.denied) == (errno.ECONNREFUSED, False)
    assert "10.1.1.1 port 80" in plan.reason


@pytest.mark.parametrize(
    ("ip", "family", "v6only", "versions"),
    [
        ("0.0.0.0", 4, False, {4}),
        ("10.1.1.1", 4, False, {4}),
        ("::", 6, False, {4, 6}),
        ("::", 6, True, {6}),
        ("127.0.0.1", 4, False, set()),
        ("::1", 6, False, set()),
    ],
)
def test_over_what_they_take_connections(world: World, ip: str, family: int, v6only: bool, versions: set[int]) -> None:
    """As everywhere: who listens on IPv4 is reached over IPv4. Loopback is for siblings."""
    world.serve(Expose(80, 8080), ip=ip, family=family, v6only=v6only)
    clients = {4: CLIENT, 6: (ip_address("2001:db8::7"), 40000)}
    assert {version for version, client in clients.items() if world.taking(client)} == versions


def test_the_socket_that_the_kernel_would_choose(world: World) -> None:
    everywhere = world.serve(Expose(80, 8080))
    here = evolve(everywhere, id=world.table.next_listener_id(), ip=WEB)
    world.table.add_listener(here)
    assert world.taking() == {here.id}


def test_draining_ones_and_nodes_that_don_t_answer(world: World) -> None:
    first, second = world.serve(Expose(80, 8080)), world.serve(Expose(80, 8080))
    world.table.put_remote("b", "1", AppRecord(App(1, WEB, "b", "web", exposes=(Expose(80, 8080),))))
    world.table.put_remote("b", "1/1", ListenerRecord(1, 4, WEB, 80))
    (far,) = (each.id for each in world.table.listeners.values() if each.app.node == "b")
    assert world.taking() == {first.id, second.id, far}
    world.table.drain([first.app])
    world.table.unreachable.add("b")
    assert world.taking() == {second.id}
    world.table.drain([second.app])
    assert world.taking() == {far}, "it may be only Serf that doesn't reach it"


def test_a_port_that_the_gateway_chooses_is_the_same_again() -> None:
    ports = list(choice_of_ports(Exposure(WEB, 80)))
    assert sorted(ports) == list(CHOICE)
    assert list(choice_of_ports(Exposure(WEB, 80))) == ports
    assert next(choice_of_ports(Exposure(WEB, 81))) != ports[0]
