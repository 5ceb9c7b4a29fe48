"""What is said of a connect is what would come of it."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from appswitch.core.policy import Action, Policy, Rule, Selector
from appswitch.core.service_table import ServiceTable
from appswitch.core.why import Why, why
from appswitch.errors import AppSwitchError
from appswitch.model import App, Expose, Exposure, GatewayRecord, Listener, Outside, Protocol

NO_80 = Policy((Rule("no-80", Action.DENY, ports=(range(80, 81),)),))


class World:
    """web (1) and db (2, 3) with two instances at port 5432, of groups 1 and 2, and what is said of them."""

    def __init__(self) -> None:
        self.table = ServiceTable("n1")
        self.web = self.table.new_app(name="web", ip=ip_address("10.1.1.1"), tags=(("grp", "1"),))
        self.databases = [self.serve("db", "10.1.1.2", group) for group in "21"]

    def serve(self, name: str, ip: str, group: str) -> App:
        app = self.table.new_app(name=name, ip=ip_address(ip), tags=(("grp", group),))
        for port in (80, 5432):
            number = self.table.next_listener_id()
            listener = Listener(id=number, app=app, family=4, ip=ip_address("0.0.0.0"), port=port, listening=True)
            self.table.add_listener(listener)
        return app

    def why(
        self,
        client: str,
        dest: str,
        port: int = 5432,
        policy: Policy = NO_80,
        gateway: bool = False,
        protocol: Protocol = Protocol.TCP,
    ) -> Why:
        return why(self.table, policy, client, dest, port, protocol, gateway=gateway)


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize("client", ["1", "web", "WEB", "web.appswitch.local", "10.1.1.1"])
@pytest.mark.parametrize("dest", ["10.1.1.2", "db", "Db.AppSwitch.local."])
def test_client_and_destination_by_each_of_their_words(world: World, client: str, dest: str) -> None:
    answer = world.why(client, dest)
    assert answer.clients == (world.web,)
    assert str(answer.ip) == "10.1.1.2"
    assert answer.told.verdict == "allow"


@pytest.mark.parametrize(
    ("client", "dest", "reason"),
    [("9", "db", "unknown-app"), ("we", "db", "unknown-app"), ("web", "d", "unknown-name"), ("", "db", "unknown-app")],
)
def test_what_nobody_is(world: World, client: str, dest: str, reason: str) -> None:
    with pytest.raises(AppSwitchError) as error:
        world.why(client, dest)
    assert error.value.reason == reason
    assert error.value.hint


def test_every_instance_is_judged_and_the_one_that_is_reached_decides(world: World) -> None:
    answer = world.why("web", "db")
    assert [(each.listener.app, each.verdict.allowed) for each in answer.told.judged] == [
        (world.databases[0], False),
        (world.databases[1], True),
    ]
    assert answer.decisive is answer.told.judged[1]


@pytest.mark.parametrize(
    ("client", "dest", "port", "gateway", "verdict", "rule"),
    [
        ("web", "db", 80, False, "deny", "no-80"),
        ("web", "db", 81, False, "unreachable", None),
        ("web", "localhost", 80, False, "unreachable", None),
        ("2", "localhost", 80, False, "allow", "self"),
        ("web", "192.0.2.1", 80, False, "deny", "no-80"),
        ("web", "192.0.2.1", 81, False, "unreachable", None),
        ("web", "192.0.2.1", 81, True, "outside", "egress"),
        ("web", "192.0.2.1", 53, True, "dns", None),
        ("web", "10.1.1.2", 5432, False, "allow", "grp"),
    ],
)
def test_verdicts(
    world: World, client: str, dest: str, port: int, gateway: bool, verdict: str, rule: str | None
) -> None:
    answer = world.why(client, dest, port, gateway=gateway)
    assert answer.told.verdict == verdict
    assert answer.told.reason or answer.told.judged, "there is always something to say"
    assert answer.rule == rule


@pytest.mark.parametrize(("protocol", "gateway"), [(each, also) for each in Protocol for also in (True, False)])
def test_servers_outside(world: World, protocol: Protocol, gateway: bool) -> None:
    """Of the addresses of a name, the first that a client comes through to."""
    rules = (
        Rule("no-1", Action.DENY, server=Selector(cidrs=(ip_network("192.0.2.1"),))),
        Rule("docs", Action.AUDIT, server=Selector(names=("docs.example",), cidrs=(ip_network("192.0.2.0/24"),))),
    )
    policy = Policy(rules, egress=False)
    dest = [Outside(ip_address(f"192.0.2.{each}"), ("docs.example",)) for each in (1, 2, 3)]
    told = why(world.table, policy, "web", dest, 443, protocol, gateway=gateway)
    if gateway:
        assert (str(told.ip), told.rule, told.told.verdict, told.allowed) == ("192.0.2.2", "docs", "audit", True)
        assert "rule docs allows it, and reports it" in str(told.told.reason)
    else:
        assert (str(told.ip), told.rule, told.told.verdict) == ("192.0.2.1", "no-1", "deny")
    denied = why(world.table, policy, "web", [Outside(dest[1].ip)], 443, protocol, gateway=gateway)
    assert (denied.rule, denied.told.verdict, denied.allowed) == ("egress", "deny", False)
    assert "serve --egress" in str(denied.told.reason)


def test_what_is_audited_is_said_to_be(world: World) -> None:
    assert world.why("web", "db", policy=Policy((Rule("look", Action.AUDIT),))).told.verdict == "audit"


def test_a_word_that_fits_several(world: World) -> None:
    assert list(world.why("db", "web").clients) == world.databases


@pytest.mark.parametrize(
    ("client", "dest", "port", "gateway", "verdict", "rule"),
    [
        ("web", "db", 53, False, "allow", "grp"),
        ("web", "db", 80, False, "deny", "no-80"),
        ("2", "db", 53, False, "allow", "self"),
        ("2", "localhost", 53, False, "allow", "self"),
        ("web", "db", 54, False, "unreachable", None),
        ("web", "localhost", 54, False, "unreachable", None),
        ("web", "192.0.2.1", 53, False, "dns", None),
        ("web", "192.0.2.1", 80, True, "deny", "no-80"),
        ("web", "192.0.2.1", 81, True, "outside", "egress"),
        ("web", "192.0.2.1", 81, False, "unreachable", None),
    ],
)
def test_udp(world: World, client: str, dest: str, port: int, gateway: bool, verdict: str, rule: str | None) -> None:
    """Of receivers, not of the TCP listeners at the same ports."""
    for app in world.databases:
        for number in (53, 80):
            world.table.add_listener(
                Listener(
                    id=world.table.next_listener_id(),
                    app=app,
                    family=4,
                    ip=ip_address("0.0.0.0"),
                    port=number,
                    listening=True,
                    protocol=Protocol.UDP,
                )
            )
    answer = world.why(client, dest, port, gateway=gateway, protocol=Protocol.UDP)
    assert answer.told.verdict == verdict
    assert answer.allowed == (verdict in ("allow", "outside", "dns"))
    assert answer.rule == rule


def test_what_is_bound_to_loopback_is_said_to_be(world: World) -> None:
    listener = Listener(
        id=world.table.next_listener_id(),
        app=world.web,
        family=4,
        ip=ip_address("127.0.0.1"),
        port=8000,
        listening=True,
    )
    world.table.add_listener(listener)
    told = world.why("2", "web", 8000).told
    assert told.verdict == "unreachable"
    assert (
        told.reason
        == "port 8000 is bound to 127.0.0.1 there: only apps with the IP 10.1.1.1 reach it, and by 127.0.0.1"
    )
    assert world.why("web", "localhost", 8000).told.verdict == "allow"


CLIENT = "198.51.100.7"


def exposed(world: World) -> App:
    app = world.table.new_app(name="shop", ip=ip_address("10.1.1.9"), exposes=(Expose(80, 8080),))
    number = world.table.next_listener_id()
    world.table.add_listener(Listener(number, app, 4, ip_address("0.0.0.0"), 80, listening=True))
    place = ip_address("192.0.2.1"), 8080
    world.table.put_gateway("n1", "g0", GatewayRecord(Exposure(app.ip, 80, 8080), (place,)))
    return app


def test_a_client_outside(world: World) -> None:
    shop = exposed(world)
    answer = world.why(CLIENT, "shop", 80, Policy())
    assert answer.clients == (Outside(ip_address(CLIENT)),)
    assert (answer.told.verdict, answer.rule, answer.allowed) == ("allow", "exposed", True)
    assert [each.listener.app for each in answer.told.judged] == [shop]
    there = Selector(cidrs=(ip_network("198.51.100.0/24"),))
    audit = Policy((Rule("seen", Action.AUDIT, there),))
    assert world.why(CLIENT, "shop", 80, audit).told.verdict == "audit"


def test_a_client_outside_whom_a_rule_denies(world: World) -> None:
    exposed(world)
    answer = world.why(CLIENT, "shop", 80)
    assert (answer.told.verdict, answer.rule, answer.allowed) == ("deny", "no-80", False)


def test_a_client_outside_whom_nobody_lets_in(world: World) -> None:
    exposed(world)
    for client, dest, port in (
        (CLIENT, "db", 5432),
        (CLIENT, "shop", 81),
        ("2001:db8::7", "shop", 80),
        (CLIENT, CLIENT, 1),
    ):
        answer = world.why(client, dest, port, Policy())
        assert (answer.told.verdict, answer.told.judged) == ("unreachable", ())
        assert "no gateway lets clients outside in" in (answer.told.reason or "")
