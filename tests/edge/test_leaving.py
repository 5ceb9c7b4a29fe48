"""TCP to the outside by gateways: an inner node and two that let its app out, all in this process."""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path

import pytest
import trio
from attrs import evolve

from appswitch.core import route
from appswitch.core.exits import Exits
from appswitch.core.policy import Policy
from appswitch.core.route import Egress
from appswitch.edge import leaving, letting_out
from appswitch.edge.backends import Backends
from appswitch.edge.dial import Asked, start_egress
from appswitch.edge.egress import EgressSockets
from appswitch.edge.leaving import Leaving
from appswitch.edge.letting_out import LettingOut
from appswitch.edge.peer_channel import Caller
from appswitch.edge.peers import listen
from appswitch.edge.relay import Relay
from appswitch.edge.sealed import Sealed
from appswitch.model import GATEWAY, App, Kind, Outside, State
from appswitch.wire.dns import Found
from appswitch.wire.peer import Announced, Leave
from tests.edge.test_remote import Node
from tests.harness import PATIENCE

SERVER = IPv4Address("198.51.100.7")
"""The outside: for the gateways a server on loopback stands there."""


async def nothing_found(_name: str) -> Found | None:
    await trio.lowlevel.checkpoint()
    return None


class Gateway(Node):
    """One that lets out."""

    def __init__(self, name: str, directory: Path, stack: ExitStack, addresses: dict[str, tuple[str, int]]) -> None:
        super().__init__(name, directory, stack, addresses)
        self.exits = Exits(here=True)
        self.egress = EgressSockets(self.names.diags[0])
        self.relay = Relay()
        stack.callback(self.relay.close)
        backends = Backends(self.table, self.balancer, nothing_found)
        out = LettingOut(
            self.apps, self.policing, self.exits, self.expected, self.egress, self.relay, self._client, backends
        )
        self.peers.handlers[Leave] = out.leave

    async def _client(self, node: str, number: int) -> App:
        await trio.lowlevel.checkpoint()
        app = self.table.app_of(node, number)
        if app is None:
            raise BlockingIOError(errno.EAGAIN, "not known yet")
        return app


class World:
    """port: of the server outside."""

    def __init__(self, directory: Path, stack: ExitStack, nursery: trio.Nursery) -> None:
        self.addresses: dict[str, tuple[str, int]] = {}
        self.stack = stack
        self.nursery = nursery
        self.inner = Node("inner", directory, stack, self.addresses)
        self.g1, self.g2 = (Gateway(name, directory, stack, self.addresses) for name in ("g1", "g2"))
        self.outside = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.outside.setblocking(False)
        self.port: int = self.outside.getsockname()[1]
        self.exits = Exits(here=False, others=lambda: ["g1", "g2"])
        relay = Relay()
        stack.callback(relay.close)
        sealed = Sealed(self.inner.names.diags)
        stack.callback(sealed._stop)
        inner = self.inner
        self.leaving = Leaving(self.exits, inner.peers, sealed, relay, inner.named, inner.names, inner.events)

    async def start(self) -> None:
        self.app = self.inner.table.new_app(name="client", ip=IPv4Address("10.1.1.1"))
        for node in (self.inner, self.g1, self.g2):
            listening = self.stack.enter_context(listen("127.0.0.1", 0))
            self.addresses[node.name] = "127.0.0.1", listening.getsockname()[1]
            await self.nursery.start(node.peers.serve, listening)
            self.nursery.start_soon(node.expected.keep_swept)
        for gateway in (self.g1, self.g2):
            self.inner.tell(gateway)
        self.nursery.start_soon(self.leaving.run)
        await trio.testing.wait_all_tasks_blocked()

    async def connect(self, port: int | None = None, bound: int = 0) -> socket.socket:
        """The program's socket, its connect under way."""
        dest = SERVER, port or self.port
        plan = Egress(*dest, tuple(self.exits.others()), names=("a.example",))
        asked = Asked(self.app, dest, 4, nonblocking=True)
        client, name = await self.leaving.connect(self.app, plan, asked, (self.app.ip, bound))
        assert name.ends[1] == dest
        return self.stack.enter_context(client)

    async def accept(self) -> socket.socket:
        with trio.fail_after(PATIENCE):
            await trio.lowlevel.wait_readable(self.outside)
        made, _ = self.outside.accept()
        made.setblocking(False)
        return self.stack.enter_context(made)

    def happened(self, node: Node, kind: Kind) -> list[tuple[str | None, int | None]]:
        return [(each.reason, each.error) for each in node.happened(kind)]


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    def start(plan: Egress, family: int) -> socket.socket:
        assert plan.ip == SERVER
        return start_egress(evolve(plan, ip=IPv4Address("127.0.0.1")), family)

    monkeypatch.setattr(letting_out, "start_egress", start)
    with ExitStack() as stack:
        async with trio.open_nursery() as nursery:
            made = World(tmp_path, stack, nursery)
            await made.start()
            yield made
            nursery.cancel_scope.cancel()
        for diag in made.inner.names.diags[1:]:
            diag.socket.close()


async def error_of(client: socket.socket) -> int:
    """What its connect has come to."""
    with trio.fail_after(PATIENCE):
        await trio.lowlevel.wait_writable(client)
    return client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


async def heard(end: socket.socket) -> bytes:
    with trio.fail_after(PATIENCE):
        await trio.lowlevel.wait_readable(end)
    return end.recv(99, socket.MSG_DONTWAIT)


def is_connecting(client: socket.socket) -> bool:
    return not select.select([], [client], [], 0)[1]


async def test_what_one_end_sends_the_other_one_hears(world: World) -> None:
    client = await world.connect()
    assert await error_of(client) == 0
    server = await world.accept()
    for one, two in ((client, server), (server, client)):
        one.send(b"there")
        assert await heard(two) == b"there"
    client.shutdown(socket.SHUT_WR)
    assert await heard(server) == b""
    server.send(b"late")
    assert await heard(client) == b"late"
    server.close()
    assert await heard(client) == b""


async def test_gateways_take_turns_and_all_three_nodes_know(world: World) -> None:
    for _ in range(4):
        assert await error_of(await world.connect()) == 0
        await world.accept()
    for gateway in (world.g1, world.g2):
        found = await gateway.egress.connections()
        assert [(each.client and each.client.node, each.medium, each.node) for each in found] == [
            ("inner", GATEWAY, gateway.name)
        ] * 2
        assert found[0].names == ("a.example",)
    found = await world.inner.names.connections()
    assert [(each.dest, each.medium, each.state, each.server) for each in found] == [
        ((SERVER, world.port), GATEWAY, State.ESTABLISHED, None)
    ] * 4
    with trio.fail_after(PATIENCE):
        while len(world.happened(world.inner, Kind.CONNECT)) < 4:  # noqa: ASYNC110 - once it is joined
            await trio.sleep(0.01)
    said = [reason for reason, _ in world.happened(world.inner, Kind.CONNECT)]
    assert sorted(map(str, said)) == ["by the gateway g1"] * 2 + ["by the gateway g2"] * 2


async def test_a_port_that_the_program_has_bound(world: World) -> None:
    client = await world.connect(bound=5000)
    (name,) = world.inner.names._names.values()
    assert name.ends[0] == (world.app.ip, 5000)
    assert await error_of(client) == 0
    with pytest.raises(OSError, match="in use"):
        await world.connect(bound=5000)


async def test_a_refusal_is_final(world: World) -> None:
    world.outside.close()
    assert await error_of(await world.connect()) == errno.ECONNREFUSED
    assert world.happened(world.inner, Kind.REFUSE) == [("the gateway g1: Connection refused", errno.ECONNREFUSED)]


@pytest.mark.parametrize("how", ["gone", "no gateway any more", "doesn't know the app"])
async def test_one_that_has_no_way_is_passed_over(world: World, how: str) -> None:
    if how == "gone":
        world.addresses["g1"] = "127.0.0.1", 1
    elif how == "no gateway any more":
        world.g1.exits.here = False
    else:
        world.g1.table.forget_node("inner")
    for _ in range(2):
        assert await error_of(await world.connect()) == 0
    assert len(await world.g2.egress.connections()) == 2


async def test_one_that_ends_before_its_connect_has_is_passed_over(world: World) -> None:
    """The program doesn't notice."""
    came = []

    async def leave(caller: Caller, _said: Leave) -> Announced:
        await trio.lowlevel.checkpoint()

        async def take(_end: socket.socket) -> None:
            await trio.lowlevel.checkpoint()
            came.append(caller.node)

        return Announced(world.g1.expected.add(caller.session, take, lambda: None))

    world.g1.peers.handlers[Leave] = leave
    assert await error_of(await world.connect()) == 0
    assert came == ["inner"]
    assert len(await world.g2.egress.connections()) == 1


async def test_no_gateway_answers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving, "UNREACHABLE_AFTER", 0.0)
    world.addresses["g1"] = world.addresses["g2"] = "127.0.0.1", 1
    assert await error_of(await world.connect()) == errno.EHOSTUNREACH
    assert world.happened(world.inner, Kind.REFUSE) == [("no gateway answers", errno.EHOSTUNREACH)]


def says(said: bytes) -> Callable[[World], Callable[[Caller, Leave], Awaitable[Announced]]]:
    """A gateway that says this of its connect."""

    def made(world: World) -> Callable[[Caller, Leave], Awaitable[Announced]]:
        async def leave(caller: Caller, _said: Leave) -> Announced:
            await trio.lowlevel.checkpoint()

            async def take(end: socket.socket) -> None:
                await trio.lowlevel.checkpoint()
                end.send(said)

            return Announced(world.g1.expected.add(caller.session, take, lambda: None))

        return leave

    return made


@pytest.mark.parametrize(
    ("said", "seen"),
    [
        (errno.ECONNREFUSED.to_bytes(4, "big"), errno.ECONNREFUSED),
        (b"\xff\xff\xff\xff", errno.EHOSTUNREACH),
        (errno.EMFILE.to_bytes(4, "big") + b"more", errno.EHOSTUNREACH),
    ],
)
async def test_what_a_gateway_may_say(world: World, said: bytes, seen: int) -> None:
    """Nonsense fails the one connect."""
    world.exits.others = lambda: ["g1"]
    world.g1.peers.handlers[Leave] = says(said)(world)
    assert await error_of(await world.connect()) == seen
    assert await error_of(await world.connect()) == seen


async def test_the_gateways_policy_holds(world: World) -> None:
    for gateway in (world.g1, world.g2):
        gateway.policing.policy = evolve(Policy(), egress=False)
    assert await error_of(await world.connect()) == errno.ECONNREFUSED
    ((_, error),) = world.happened(world.g1, Kind.DENY)
    assert error == errno.ECONNREFUSED


async def test_an_address_that_an_app_owns_at_the_gateway_is_not_outside(world: World) -> None:
    for gateway in (world.g1, world.g2):
        gateway.serve(gateway.table.new_app(name="web", ip=SERVER), port=world.port)
    assert await error_of(await world.connect()) == errno.ECONNREFUSED
    assert world.happened(world.g1, Kind.REFUSE) == [("that isn't outside", errno.ECONNREFUSED)]


async def test_the_ports_of_the_cluster(world: World) -> None:
    for gateway in (world.g1, world.g2):
        gateway.exits.own_ports = lambda: {(SERVER, world.port)}
    assert await error_of(await world.connect()) == errno.ECONNREFUSED
    assert world.happened(world.g1, Kind.REFUSE)[0][1] == errno.ECONNREFUSED


async def test_whoever_gives_up_calls_it_off(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server takes nobody; its gateway's connect would go on for two minutes."""
    monkeypatch.setattr(leaving, "SWEEP_EVERY", 0.01)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        crowd = [world.stack.enter_context(socket.socket()) for _ in range(4)]
        for each in crowd:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
        client = await world.connect(port)
        with trio.fail_after(PATIENCE):
            while not await world.g1.egress.connections():  # noqa: ASYNC110 - nothing announces it
                await trio.sleep(0.01)
        assert is_connecting(client)
        client.close()
        await world.inner.names.sweep()
        with trio.fail_after(PATIENCE):
            while await world.g1.egress.connections():  # noqa: ASYNC110 - nothing announces it
                await trio.sleep(0.01)
    assert not world.happened(world.inner, Kind.CONNECT)


async def test_hosts_without_namespaces(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def forbidden(_version: int) -> tuple[bytes, socket.socket]:
        await trio.lowlevel.checkpoint()
        raise PermissionError(errno.EPERM, "forbidden")

    monkeypatch.setattr(Sealed, "hold", staticmethod(forbidden))
    with pytest.raises(OSError, match="namespace") as failed:
        await world.connect()
    assert failed.value.errno == errno.ENETUNREACH


def test_a_gateways_plan_never_leads_through_another() -> None:
    """No circles: whatever gateways there are, the plan for others' connects is to leave by this host."""
    plan = partial(route.way_out, Policy(), App(1, IPv4Address("10.1.1.1"), "n"), Outside(SERVER), 80)
    assert plan(gateway=True, gateways=["g2"]) == Egress(SERVER, 80)
