"""`--bypass`: how it is written, and where it sends a connect."""

from __future__ import annotations

import errno
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appswitch.core import route
from appswitch.core.bypass import bypass_of, parse_bypass
from appswitch.core.datagrams import Deny, plan_datagrams
from appswitch.core.policy import Action, Policy, Rule, Selector
from appswitch.core.route import Egress, Kernel, Reach, Refuse
from appswitch.core.service_table import ServiceTable
from appswitch.core.why import why
from appswitch.errors import AppSwitchError
from appswitch.model import Address, App, Bypass, Listener, Outside, Protocol

OWN, OTHER = ip_address("10.1.1.1"), ip_address("10.1.1.2")
PRIVATE, PUBLIC = ip_address("10.2.0.7"), ip_address("1.1.1.1")


@pytest.mark.parametrize(
    ("text", "place", "ports"),
    [
        ("10.0.0.0/8", "10.0.0.0/8", ()),
        ("10.0.0.1", "10.0.0.1/32", ()),
        ("10.0.0.1:5432", "10.0.0.1/32", ((5432, 5432),)),
        ("127.0.0.1:80,8000-8999", "127.0.0.1/32", ((80, 80), (8000, 8999))),
        ("::1", "::1/128", ()),
        ("fd00::/8", "fd00::/8", ()),
        ("[fd00::/8]:443", "fd00::/8", ((443, 443),)),
        ("[fd00::1]", "fd00::1/128", ()),
        ("0.0.0.0/0", "0.0.0.0/0", ()),
        ("localhost:80", "localhost", ((80, 80),)),
        ("DB.Example.com.", "db.example.com", ()),
        ("*.corp.example:443", "*.corp.example", ((443, 443),)),
        ("*", "*", ()),
    ],
)
def test_how_it_is_written(text: str, place: str, ports: tuple[tuple[int, int], ...]) -> None:
    bypass = parse_bypass(text)
    assert bypass == Bypass(place, ports)
    assert parse_bypass(str(bypass)) == bypass


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "nothing that can be bypassed"),
        ("10.0.0.1/8", "host bits"),
        ("10.0.0.1:0", "'0'"),
        ("10.0.0.1:http", "nothing that can be bypassed"),
        ("10.0.0.1:80-", "'80-'"),
        ("10.0.0.1:90-80", "'90-80'"),
        ("10.0.0.1:65536", "'65536'"),
        ("10.0.0.1:80,,81", "''"),
        ("10.0.0.1:1-2-3", "'1-2-3'"),
        ("10.0.0.1:" + "8" * 5000, "'88888"),
        ("10.0.0.256", "neither a network"),
        ("10.0.0.0/33", "neither a network"),
        ("db", "no dot"),
        ("web.appswitch.local", "name of an app"),
        ("100.64.1.0/24", "addresses of apps"),
        ("224.0.0.0/4", "multicast"),
        ("255.255.255.255", "broadcast"),
        ("::ffff:10.0.0.0/104", "another form"),
        ("a b.example", "neither a network"),
        ("fd00::1::2", "neither a network"),
    ],
)
def test_what_it_cant_be(text: str, says: str) -> None:
    with pytest.raises(AppSwitchError) as caught:
        parse_bypass(text)
    assert (caught.value.reason, says in caught.value.message) == ("bad-bypass", True), caught.value
    assert caught.value.hint


@given(st.text("0123456789abcdef.:/[]*-,xyz", max_size=24))
def test_anything_else_is_refused_or_comes_back_the_same(text: str) -> None:
    try:
        bypass = parse_bypass(text)
    except AppSwitchError as error:
        assert error.reason == "bad-bypass"  # noqa: PT017
    else:
        assert parse_bypass(str(bypass)) == bypass


def app(*bypasses: str, ip: Address = OWN, table: ServiceTable | None = None) -> App:
    return (table or ServiceTable("n1")).new_app(name=None, ip=ip, bypasses=tuple(map(parse_bypass, bypasses)))


@pytest.mark.parametrize(
    ("bypass", "ip", "port", "names", "fits"),
    [
        ("10.0.0.0/8", "10.2.0.7", 80, (), True),
        ("10.0.0.0/8", "11.2.0.7", 80, (), False),
        ("10.0.0.0/8:80,90-99", "10.2.0.7", 95, (), True),
        ("10.0.0.0/8:80,90-99", "10.2.0.7", 81, (), False),
        ("10.0.0.0/8", "10.2.0.7", 53, (), False),
        ("10.0.0.0/8:53", "10.2.0.7", 53, (), True),
        ("10.0.0.0/8", "fd00::1", 80, (), False),
        ("127.0.0.1", "127.0.0.1", 80, (), True),
        ("127.0.0.1", "127.0.0.2", 80, (), False),
        ("localhost", "::1", 80, (), True),
        ("0.0.0.0/0", "127.0.0.1", 80, (), False),
        ("::/0", "::1", 80, (), False),
        ("0.0.0.0/0", "169.254.169.254", 80, (), True),
        ("*.example", "1.1.1.1", 80, ("a.example",), True),
        ("*.example", "1.1.1.1", 80, ("a.other",), False),
        ("*.example", "1.1.1.1", 80, (), False),
        ("*.example", "10.2.0.7", 80, ("a.example",), False),
        ("*.example", "127.0.0.1", 80, ("a.example",), False),
    ],
)
def test_what_it_fits(bypass: str, ip: str, port: int, names: tuple[str, ...], fits: bool) -> None:
    assert (bypass_of(app(bypass), Outside(ip_address(ip), names), port) is not None) is fits


class World:
    """An app that bypasses, and another one that serves port 80 at OTHER."""

    def __init__(self, *bypasses: str, policy: Policy | None = None) -> None:
        self.table = ServiceTable("n1")
        self.policy = policy or Policy()
        self.client = app(*bypasses, table=self.table)
        self.server = app(ip=OTHER, table=self.table)
        for owner in (self.client, self.server):
            for protocol in Protocol:
                self.table.add_listener(
                    Listener(self.table.next_listener_id(), owner, 4, ip_address("0.0.0.0"), 80, listening=True,
                             protocol=protocol)
                )  # fmt: skip

    def connect(self, dest: str, port: int = 80, names: tuple[str, ...] = (), gateways: tuple[str, ...] = ()) -> object:
        ip = ip_address(dest)
        return route.plan_connect(
            self.table, self.policy, self.client, ip, port, gateway=False, gateways=gateways, names=names
        )

    def send(self, dest: str, port: int = 80, asker: App | None = None, serving: set[int] | None = None) -> object:
        ip = ip_address(dest)
        return plan_datagrams(
            self.table, self.policy, self.client, ip, port, serving=serving or set(), asker=asker, turn=0, gateway=False
        )


def test_no_gateway_is_needed_nor_asked() -> None:
    world = World("10.0.0.0/8")
    (bypass,) = world.client.bypasses
    assert world.connect(str(PRIVATE)) == Egress(PRIVATE, 80, bypass=bypass)
    assert world.connect(str(PRIVATE), gateways=("g",)) == Egress(PRIVATE, 80, bypass=bypass)
    assert world.send(str(PRIVATE)) == Egress(PRIVATE, 80, bypass=bypass)
    assert isinstance(world.connect("1.1.1.1"), Refuse)
    assert world.connect("1.1.1.1", gateways=("g",)) == Egress(PUBLIC, 80, ("g",))


def test_what_is_an_apps_stays_one() -> None:
    world = World("0.0.0.0/0")
    for dest in (str(OTHER), str(OWN), "127.0.0.1"):
        assert isinstance(world.connect(dest), Reach), dest
        assert not isinstance(world.send(dest), Egress), dest
    world.table.remove_app(world.server.id)
    gone = world.connect(str(OTHER))
    assert isinstance(gone, Refuse)
    assert gone.error == errno.ECONNREFUSED


def test_loopback_when_it_is_named() -> None:
    """Before what the app serves there itself."""
    world = World("127.0.0.1:80")
    assert isinstance(world.connect("127.0.0.1"), Egress)
    assert isinstance(world.connect("0.0.0.0"), Egress), "the any-address means this host (ip(7))"
    assert isinstance(world.connect("127.0.0.2"), Reach)
    assert isinstance(world.send("127.0.0.1", serving={world.client.id}), Egress)
    assert not isinstance(world.send("127.0.0.1", asker=world.server), Egress), "that is an answer"


def test_port_53_is_the_dns_servers_unless_it_is_named() -> None:
    assert world_plans(World("10.0.0.0/8")) == [Kernel, Kernel]
    assert world_plans(World("10.0.0.0/8:53")) == [Egress, Egress]


def world_plans(world: World) -> list[type]:
    return [type(world.connect(str(PRIVATE), 53)), type(world.send(str(PRIVATE), 53))]


def test_policy_is_asked() -> None:
    deny = Rule("not-there", Action.DENY, server=Selector(cidrs=(ip_network("10.2.0.0/16"),)))
    world = World("10.0.0.0/8", policy=Policy((deny,)))
    plan = world.connect(str(PRIVATE))
    assert isinstance(plan, Refuse)
    assert (plan.error, plan.rule) == (errno.ECONNREFUSED, "not-there")
    assert isinstance(world.send(str(PRIVATE)), Deny)
    assert isinstance(world.connect("10.3.0.1"), Egress)
    world.policy = Policy(egress=False)
    closed = world.connect(str(PRIVATE))
    assert isinstance(closed, Refuse)
    assert closed.rule == "egress"
    allow = Rule("there", Action.ALLOW, server=Selector(cidrs=(ip_network("10.2.0.0/16"),)))
    world.policy = Policy((allow,), egress=False)
    assert isinstance(world.connect(str(PRIVATE)), Egress)


def test_a_name_that_stands_for_an_address_inside_says_so() -> None:
    plan = World("*.example").connect(str(PRIVATE), names=("a.example",))
    assert isinstance(plan, Refuse)
    assert "no address that isn't public" in plan.reason


def test_why() -> None:
    world = World("10.2.0.0/16:80")
    told = why(world.table, world.policy, str(OWN), str(PRIVATE), 80, Protocol.TCP, gateway=False)
    assert (told.told.verdict, told.allowed, told.rule) == ("bypass", True, "egress")
    assert "--bypass 10.2.0.0/16:80" in (told.told.reason or "")
