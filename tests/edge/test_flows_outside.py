"""Flows that lead outside: at the gateway, node b, their far end is a socket of the host."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest
from attrs import evolve

from appswitch.core.exits import Exit
from appswitch.core.policy import Policy
from appswitch.edge import flows as flows_module
from appswitch.edge.flows import Pair, connect_outside
from appswitch.model import GATEWAY, State
from tests.edge.test_flows import CLIENT, SERVER, World, heard, until, world
from tests.harness import free_port, open_descriptors

__all__ = ["world"]  # a fixture

pytestmark = pytest.mark.root


@pytest.fixture
def outside() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.setblocking(False)
        made.bind(("127.0.0.9", free_port()))
        yield made


def name_of(made: socket.socket) -> Pair:
    return IPv4Address(made.getsockname()[0]), made.getsockname()[1]


async def open_to(world: World, server: Pair, near: Pair = CLIENT) -> None:
    await world.a.flows.open(world.a.app, near, Exit("b", ("a.example",)), server)


@pytest.mark.parametrize("connected", [False, True])
async def test_the_app_sees_the_server_and_the_server_the_gateway(
    world: World, outside: socket.socket, connected: bool
) -> None:
    server = name_of(outside)
    with await world.a.socket(CLIENT, server if connected else None) as client:
        await open_to(world, server)
        await open_to(world, server)
        assert world.b.asked == 1, "there is one already"
        for data in (b"one", b"", b"three"):
            client.send(data) if connected else client.sendto(data, (str(server[0]), server[1]))
            got, source = await heard(outside)
            assert got == data
            assert source[0] == IPv4Address("127.0.0.1"), "the gateway's own"
            outside.sendto(data + b"!", (str(source[0]), source[1]))
            assert await heard(client) == (data + b"!", server)


async def test_nobody_but_the_server_is_heard(world: World, outside: socket.socket) -> None:
    server = name_of(outside)
    with await world.a.socket(CLIENT) as client, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        await open_to(world, server)
        client.sendto(b"x", (str(server[0]), server[1]))
        _, source = await heard(outside)
        stranger.sendto(b"from elsewhere", (str(source[0]), source[1]))
        outside.sendto(b"answer", (str(source[0]), source[1]))
        assert await heard(client) == (b"answer", server)


async def test_nobody_receives_there(world: World, outside: socket.socket) -> None:
    """The client's own kernel says so, as it would have from the gateway's."""
    server = name_of(outside)
    outside.close()
    with await world.a.socket(CLIENT, server) as client:
        await open_to(world, server)
        client.send(b"anybody?")
        with pytest.raises(ConnectionRefusedError):
            await heard(client)
        await until(lambda: not world.a.flows.all() and not world.b.flows.all())


async def test_it_ends_with_the_clients_socket(
    world: World, outside: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows_module, "LOOK_EVERY", 0.01)
    with await world.a.socket(CLIENT, name_of(outside)) as client:
        descriptors = open_descriptors()
        await open_to(world, name_of(outside))
        assert open_descriptors() == descriptors + 2
        client.close()
        await until(lambda: not world.a.flows.all() and not world.b.flows.all())
        assert open_descriptors() == descriptors - 1


async def test_it_ends_when_it_is_idle(world: World, outside: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows_module, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(flows_module, "IDLE", 0.1)
    server = name_of(outside)
    with await world.a.socket(CLIENT, server) as client:
        await open_to(world, server)
        await until(lambda: not world.a.flows.all() and not world.b.flows.all())
        await open_to(world, server)
        client.send(b"back")
        assert (await heard(outside))[0] == b"back"


@pytest.mark.parametrize("where", ["a", "b"])
async def test_it_ends_with_its_app(world: World, outside: socket.socket, where: str) -> None:
    with await world.a.socket(CLIENT, name_of(outside)):
        await open_to(world, name_of(outside))
        side = world.a if where == "a" else world.b
        side.apps.table.remove_app(world.a.app.id if where == "a" else world.app_on(world.b, world.a.app).id)
        side.apps.services_changed()
        await until(lambda: not world.a.flows.all() and not world.b.flows.all())


@pytest.mark.parametrize("where", ["a", "b"])
async def test_a_policy_that_lets_nobody_out_ends_it(world: World, outside: socket.socket, where: str) -> None:
    server = name_of(outside)
    with await world.a.socket(CLIENT, server) as client:
        await open_to(world, server)
        side = world.a if where == "a" else world.b
        side.apps.services_changed()
        client.send(b"allowed")
        assert (await heard(outside))[0] == b"allowed"
        side.flows.policing.policy = evolve(Policy(), egress=False)
        assert not await side.flows.to_outside(), "nothing is left to be cut"
        side.apps.services_changed()
        await until(lambda: not world.a.flows.all() and not world.b.flows.all())


async def test_both_ends_are_listed(world: World, outside: socket.socket) -> None:
    server = name_of(outside)
    with await world.a.socket(CLIENT, server) as client:
        await open_to(world, server)
        client.send(b"x")
        _, source = await heard(outside)
        (here,), (there,) = [await side.flows.to_outside() for side in (world.a, world.b)]
        assert (here.source, here.dest, here.node, here.names) == (CLIENT, server, "a", ("a.example",))
        assert (there.source, there.dest, there.node) == (source, server, "b")
        for each in (here, there):
            assert (each.proto, each.medium, each.state, each.server) == ("udp", GATEWAY, State.ESTABLISHED, None)
            assert each.client is not None
            assert each.client.node == "a"


async def test_flows_between_apps_are_not_listed(world: World) -> None:
    server, client = await world.b.socket(SERVER), await world.a.socket(CLIENT)
    with server, client:
        await world.open()
        for side in (world.a, world.b):
            assert len(side.flows.all()) == 1
            assert not await side.flows.to_outside()


def test_who_can_t_be_connected_to_leaves_no_descriptor() -> None:
    before = open_descriptors()
    with pytest.raises(PermissionError):
        connect_outside((IPv4Address("255.255.255.255"), 1))
    assert open_descriptors() == before
