"""Where datagrams go. Who receives is given: the kernel knows it."""

from __future__ import annotations

import errno
from ipaddress import IPv4Address, ip_address, ip_network

import pytest

from appswitch.core import datagrams
from appswitch.core.datagrams import DatagramPlan, Deny, Lost, Place, Relay
from appswitch.core.policy import Action, Policy, Rule, Selector, Verdict
from appswitch.core.route import Egress, Kernel, Refuse, way_out
from appswitch.core.service_table import ServiceTable
from appswitch.model import Address, App, AppRecord, ListenerRecord, Outside, Protocol, Tag

CLIENT, SERVER = ip_address("10.1.1.1"), ip_address("10.1.1.2")
LOOPBACK, OUTSIDE = ip_address("127.0.0.1"), ip_address("198.51.100.7")


class World:
    def __init__(self) -> None:
        self.table = ServiceTable("n1")

    def app(self, ip: Address | None, tags: tuple[Tag, ...] = (), exclusive: bool = False) -> App:
        return self.table.new_app(name=None, ip=ip, tags=tags, exclusive=exclusive)

    def far(self, ip: Address | None, *ports: int, node: str = "n2", tags: tuple[Tag, ...] = ()) -> App:
        """An app on another host, and what it has bound."""
        number = 1 + sum(each.node == node for each in self.table.apps.values())
        told = App(number, ip or ip_address(f"169.254.9.{number}"), node, tags=tags)
        self.table.put_remote(node, str(number), AppRecord(told, draining=False))
        for port in ports:
            record = ListenerRecord(port, 4, ip_address("0.0.0.0"), port, False, Protocol.UDP)
            self.table.put_remote(node, f"{number}/{port}", record)
        app = self.table.app_of(node, number)
        assert app is not None
        return app

    def plan_as_told(self, app: App, dest: Address, *here: App, port: int = 80, turn: int = 0) -> DatagramPlan:
        """serving: as the table has it of other hosts; here: the apps of this one that have a receiver."""
        ids = datagrams.serving_elsewhere(self.table, app, dest, port) | {each.id for each in here}
        return datagrams.plan_datagrams(
            self.table, Policy(), app, dest, port, serving=ids, asker=None, turn=turn, gateway=False
        )

    def plan(
        self,
        app: App,
        dest: Address,
        port: int = 80,
        *serving: App,
        asker: App | None = None,
        turn: int = 0,
        gateway: bool = False,
        bound: tuple[Address, int] | None = None,
    ) -> DatagramPlan:
        ids = {each.id for each in serving}
        return datagrams.plan_datagrams(
            self.table, Policy(), app, dest, port, serving=ids, asker=asker, turn=turn, gateway=gateway, bound=bound,
        )  # fmt: skip


@pytest.fixture
def world() -> World:
    return World()


def error_of(plan: DatagramPlan) -> int:
    assert isinstance(plan, Refuse), plan
    return plan.error


def test_to_who_receives_from_ones_own_address(world: World) -> None:
    client, server = world.app(CLIENT), world.app(SERVER)
    assert world.plan(client, SERVER, 80, server) == Place(CLIENT, 0, (server,))
    assert world.plan(client, SERVER, 80, server, bound=(ip_address("0.0.0.0"), 5353)) == Place(CLIENT, 5353, (server,))
    assert world.plan(client, server.alias, 80, asker=server) == Place(client.alias, 0, (server,))


def test_instances_take_turns_and_who_receives_comes_first(world: World) -> None:
    client, *servers = world.app(CLIENT), world.app(SERVER), world.app(SERVER), world.app(SERVER)
    first = []
    for turn in range(4):
        plan = world.plan(client, SERVER, 80, *servers[1:], turn=turn)
        assert isinstance(plan, Place)
        assert set(plan.candidates) == set(servers[1:])
        first.append(plan.candidates[0])
    assert first == [servers[1], servers[2]] * 2


def test_where_nobody_receives_the_kernel_there_refuses(world: World) -> None:
    client, server = world.app(CLIENT), world.app(SERVER)
    assert world.plan(client, SERVER) == Place(CLIENT, 0, (server,), heard=False)


def test_to_oneself_by_oneself(world: World) -> None:
    app, sibling = world.app(CLIENT), world.app(CLIENT)
    for dest in (LOOPBACK, CLIENT, app.alias, ip_address("::1")):
        assert world.plan(app, dest, 80, app, sibling) == Kernel()
        assert world.plan(app, dest, 80) == Kernel(), "nobody receives: the kernel says so"
    assert world.plan(app, LOOPBACK, 80, sibling) == Place(LOOPBACK, 0, (sibling,))
    assert world.plan(app, CLIENT, 80, sibling) == Place(CLIENT, 0, (sibling,))


def test_a_socket_of_anothers_that_is_placed_here_is_reached_by_the_kernel(world: World) -> None:
    app, client = world.app(SERVER), world.app(CLIENT)
    assert world.plan(app, CLIENT, 40000, app, client) == Kernel()


@pytest.mark.parametrize("dest", ["224.0.0.251", "255.255.255.255", "ff02::fb"])
def test_many_receivers_are_the_kernels_matter(world: World, dest: str) -> None:
    assert world.plan(world.app(CLIENT), ip_address(dest)) == Kernel()


def test_policy(world: World) -> None:
    client, server = world.app(CLIENT, (("grp", "1"),)), world.app(SERVER, (("grp", "2"),))
    denied = world.plan(client, SERVER, 80, server)
    assert isinstance(denied, Deny)
    assert (denied.server, denied.verdict.rule) == (server, "grp")
    assert world.plan(client, SERVER) == denied, "whether somebody receives or not"
    friend = world.app(SERVER, (("grp", "1"),))
    assert world.plan(client, SERVER, 80, server, friend) == Place(CLIENT, 0, (friend,))
    assert world.plan(client, SERVER, 80, server, asker=server) == Place(CLIENT, 0, (server,)), "an answer may go"


def test_a_client_that_no_one_can_reach_gets_answers(world: World) -> None:
    server, client = world.app(SERVER), world.app(None)
    for ip in (client.ip, client.alias, server.alias):
        assert world.plan(client, ip, 40000, gateway=True) in (Lost(), Kernel())
    assert world.plan(server, client.ip, 40000, client, gateway=True) == Lost()
    assert world.plan(server, client.alias, 40000, gateway=True) == Lost()
    assert world.plan(server, client.ip, 40000, asker=client) == Place(SERVER, 0, (client,))
    assert datagrams.candidates(world.table, server, client.ip) == [server]


def test_the_outside(world: World) -> None:
    app = world.app(CLIENT)
    assert error_of(world.plan(app, OUTSIDE)) == errno.ENETUNREACH
    assert world.plan(app, OUTSIDE, gateway=True) == Egress(OUTSIDE, 80)
    assert world.plan(app, OUTSIDE, 53, gateway=True) == Kernel(), "the DNS socket in the namespace"
    by_others = way_out(Policy(), app, Outside(OUTSIDE), 80, gateway=False, gateways=["g1", "g2"])
    assert by_others == Egress(OUTSIDE, 80, ("g1", "g2"))
    assert way_out(Policy(), app, Outside(OUTSIDE), 80, gateway=True, gateways=["g1"]) == Egress(OUTSIDE, 80), (
        "a gateway goes by itself"
    )


def test_an_app_that_has_gone_gets_nothing(world: World) -> None:
    app, server = world.app(CLIENT), world.app(SERVER)
    world.table.remove_app(server.id)
    assert world.plan(app, SERVER, gateway=True) == Lost()


@pytest.mark.parametrize(
    ("source", "dest", "error"),
    [
        ("10.9.9.9", SERVER, errno.ENETUNREACH),
        ("10.9.9.9", LOOPBACK, errno.ENETUNREACH),
        ("fd00::9", ip_address("fd00::1"), errno.EINVAL),
        ("127.0.0.1", SERVER, errno.EINVAL),
        ("::1", SERVER, errno.ENETUNREACH),
        ("10.1.1.1", ip_address("fd00::1"), errno.EAFNOSUPPORT),
    ],
)
def test_sources_that_do_not_fit(world: World, source: str, dest: Address, error: int) -> None:
    client, server = world.app(CLIENT), world.app(dest)
    assert error_of(world.plan(client, dest, 80, server, bound=(ip_address(source), 7))) == error


def test_bind(world: World) -> None:
    app = world.app(CLIENT)
    for ip in ("0.0.0.0", "::", "127.0.0.1", "::1", str(CLIENT), str(app.alias), "224.0.0.251", "ff02::fb"):
        assert datagrams.plan_udp_bind(world.table, app, ip_address(ip), 80) is None
    for other in (SERVER, ip_address("fd00::1")):
        refused = datagrams.plan_udp_bind(world.table, app, other, 80)
        assert refused is not None
        assert refused.error == errno.EADDRNOTAVAIL
    refused = datagrams.plan_udp_bind(world.table, app, CLIENT, 80, v6only=True)
    assert refused is not None
    assert refused.error == errno.EINVAL


def receive(world: World, app: App, ip: str = "0.0.0.0", port: int = 80) -> bool:
    family = ip_address(ip).version
    receiver = datagrams.new_receiver(world.table, app, family, ip_address(ip), port, v6only=False)
    if receiver is not None:
        world.table.add_listener(receiver)
    return receiver is not None


@pytest.mark.parametrize("exclusive", [0, 1])
def test_exclusive(world: World, exclusive: int) -> None:
    apps = [world.app(CLIENT, exclusive=index == exclusive) for index in range(2)]
    assert receive(world, apps[0])
    refused = datagrams.plan_udp_bind(world.table, apps[1], IPv4Address(0), 80)
    assert refused is not None
    assert refused.error == errno.EADDRINUSE
    assert datagrams.plan_udp_bind(world.table, apps[1], IPv4Address(0), 81) is None
    assert datagrams.plan_udp_bind(world.table, apps[0], IPv4Address(0), 80) is None, "its own are the kernel's matter"


def test_receivers_are_services(world: World) -> None:
    app = world.app(CLIENT)
    assert receive(world, app)
    assert not receive(world, app), "SO_REUSEPORT: one instance"
    assert not receive(world, app, "224.0.0.251")
    (service,) = world.table.services()
    assert (service.protocol, service.port) == (Protocol.UDP, 80)
    assert not list(world.table.at_port(CLIENT, 80)), "TCP has ports of its own"
    assert list(world.table.at_port(CLIENT, 80, Protocol.UDP)) == [service]
    world.table.remove_listener(service.id)
    assert not list(world.table.at_port(CLIENT, 80, Protocol.UDP))


def test_an_app_on_another_host(world: World) -> None:
    client, server = world.app(CLIENT), world.far(SERVER, 80)
    assert world.plan_as_told(client, SERVER) == Relay(CLIENT, 0, (server,))
    unheard = Relay(CLIENT, 0, (server,), heard=False)
    assert world.plan_as_told(client, SERVER, port=81) == unheard, "its host knows whether it has such a port"


def test_who_receives_here_comes_before_who_does_elsewhere(world: World) -> None:
    client, here = world.app(CLIENT), world.app(SERVER)
    far = [world.far(SERVER, 80, node=node) for node in ("n2", "n3")]
    assert world.plan_as_told(client, SERVER, here) == Place(CLIENT, 0, (here,))
    for turn in range(3):
        plan = world.plan_as_told(client, SERVER, turn=turn)
        assert plan == Relay(CLIENT, 0, (far[turn % 2], far[1 - turn % 2]))
    world.table.unreachable.add("n2")
    assert world.plan_as_told(client, SERVER) == Relay(CLIENT, 0, (far[1],))
    world.table.unreachable.add("n3")
    assert isinstance(world.plan_as_told(client, SERVER), Relay), "there is no other"


def test_a_sibling_on_another_host(world: World) -> None:
    app, sibling = world.app(CLIENT), world.far(CLIENT, 80)
    assert world.plan_as_told(app, LOOPBACK) == Relay(LOOPBACK, 0, (sibling,))
    assert world.plan_as_told(app, CLIENT) == Relay(CLIENT, 0, (sibling,))
    assert world.plan_as_told(app, LOOPBACK, app) == Kernel(), "its own socket comes first"
    assert world.plan_as_told(app, LOOPBACK, port=81) == Kernel()


def test_policy_and_draining_hold_for_other_hosts(world: World) -> None:
    client, server = world.app(CLIENT, (("grp", "1"),)), world.far(SERVER, 80, tags=(("grp", "2"),))
    denied = world.plan_as_told(client, SERVER)
    assert isinstance(denied, Deny)
    assert denied.server == server
    friend = world.far(SERVER, 80, tags=(("grp", "1"),))
    assert world.plan_as_told(client, SERVER) == Relay(CLIENT, 0, (friend,))
    world.table.draining.add(friend.id)
    assert isinstance(world.plan_as_told(client, SERVER), Deny)


def test_an_answer_to_another_host(world: World) -> None:
    server, client = world.app(SERVER), world.far(None)
    plan = world.plan(server, client.ip, 40000, asker=client, bound=(SERVER, 69))
    assert plan == Relay(SERVER, 69, (client,), is_answer=True)


def judge(world: World, peer: App, app: App, source: Address, dest: Address, *, asked: bool = False) -> object:
    plan = datagrams.plan_flow(world.table, Policy(), peer, app, source, dest, 80, asked=asked)
    return plan.error if isinstance(plan, Refuse) else plan


def test_what_another_host_announces_is_judged(world: World) -> None:
    app, peer = world.app(SERVER), world.far(CLIENT)
    assert judge(world, peer, app, CLIENT, SERVER) is None
    assert judge(world, peer, app, peer.alias, app.alias) is None
    for source, dest in (
        (SERVER, SERVER),
        (CLIENT, CLIENT),
        (LOOPBACK, LOOPBACK),
        (LOOPBACK, SERVER),
        (OUTSIDE, SERVER),
        (IPv4Address(0), SERVER),
        (CLIENT, ip_address("224.0.0.1")),
    ):
        assert judge(world, peer, app, source, dest) == errno.EADDRNOTAVAIL
        assert judge(world, peer, app, source, dest, asked=True) == errno.EADDRNOTAVAIL
    assert judge(world, peer, app, CLIENT, app.alias) == errno.EAFNOSUPPORT


def test_a_sibling_on_another_host_may_come_from_loopback(world: World) -> None:
    app, sibling = world.app(CLIENT), world.far(CLIENT)
    assert judge(world, sibling, app, LOOPBACK, LOOPBACK) is None
    lonely, other = world.app(None), world.far(None)
    assert judge(world, other, lonely, LOOPBACK, LOOPBACK) == errno.EADDRNOTAVAIL


def test_who_may_only_be_answered(world: World) -> None:
    client, server = world.app(None), world.far(SERVER)
    assert judge(world, server, client, SERVER, client.ip) == errno.ECONNREFUSED
    assert judge(world, server, client, SERVER, client.ip, asked=True) is None


def test_the_policy_of_the_host_that_receives(world: World) -> None:
    app, peer = world.app(SERVER, (("grp", "2"),)), world.far(CLIENT, tags=(("grp", "1"),))
    assert isinstance(judge(world, peer, app, CLIENT, SERVER), Deny)
    assert judge(world, peer, app, CLIENT, SERVER, asked=True) is None


def test_who_may_send_to_the_outside(world: World) -> None:
    app = world.app(CLIENT)
    rule = Rule(
        "time", Action.AUDIT, server=Selector(cidrs=(ip_network(OUTSIDE),)), ports=(range(123, 124),), protos=("udp",)
    )
    policy = Policy((rule,), egress=False)

    def plan(port: int) -> DatagramPlan:
        return datagrams.plan_datagrams(
            world.table, policy, app, OUTSIDE, port, serving=(), asker=None, turn=0, gateway=True, names=("a.example",)
        )

    assert plan(123) == Egress(OUTSIDE, 123, names=("a.example",), verdict=Verdict(True, "time", audit=True))
    assert plan(124) == Deny(Outside(OUTSIDE, ("a.example",)), Verdict(False, "egress"))
