"""Reaching backends, and what is known of their health: real servers on 127.0.0.1, which is let here."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from ipaddress import IPv4Address, ip_address

import pytest
import trio

from appswitch.core.balance import Balancer
from appswitch.core.external import read, register
from appswitch.core.service_table import ServiceTable
from appswitch.edge import backends as module
from appswitch.edge.backends import Backends, backend_of
from appswitch.edge.healths import GatewayHealths, of_backend
from appswitch.model import Address, Health, HealthState, Listener
from appswitch.wire.dns import Found
from appswitch.wire.peer import AskHealths, Healths

HOST = ip_address("127.0.0.1")


class World:
    """A table, and name servers that say what is in `names`."""

    def __init__(self) -> None:
        self.table = ServiceTable("n1")
        self.names: dict[str, tuple[Address, ...]] = {}
        self.asked: list[str] = []
        self.backends = Backends(self.table, Balancer(self.table), self.look_up)

    async def look_up(self, name: str) -> Found | None:
        self.asked.append(name)
        return Found(name, self.names[name], 0) if name in self.names else None

    def add(self, *backends: str) -> list[Listener]:
        return list(self.table.listeners_of(register(self.table, read("db", backends), 0.0)))

    def state(self, listener: Listener) -> HealthState:
        return self.backends.healths.of(backend_of(listener)).state


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(module, "may_stand_for", lambda _table, ip: ip == HOST)
    with trio.fail_after(60):
        yield World()


def server() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def unused_port() -> int:
    with server() as closed:
        return int(closed.getsockname()[1])


def port_of(listening: socket.socket) -> int:
    return int(listening.getsockname()[1])


@pytest.mark.parametrize("family", [4, 6])
async def test_by_a_name(world: World, family: int) -> None:
    world.names["db.example"] = (HOST,)
    with server() as listening:
        (listener,) = world.add(f"5432:db.example:{port_of(listening)}")
        with await world.backends.connect(backend_of(listener), family) as made, listening.accept()[0] as end:
            assert made.family == (socket.AF_INET6 if family == 6 else socket.AF_INET)
            end.sendall(b"x")
            await trio.lowlevel.wait_readable(made)
            assert made.recv(9) == b"x"
            assert not made.getblocking()
    assert world.state(listener) is HealthState.UP


async def test_each_address_of_a_name_is_tried(world: World) -> None:
    """The first is one that it may not stand for."""
    world.names["db.example"] = (IPv4Address("169.254.169.254"), HOST)
    with server() as listening:
        (listener,) = world.add(f"5432:db.example:{port_of(listening)}")
        (await world.backends.connect(backend_of(listener), 4)).close()


async def test_a_name_that_leads_inside(world: World) -> None:
    world.names["db.example"] = (IPv4Address("10.9.9.9"),)
    (listener,) = world.add("5432:db.example:1")
    with pytest.raises(ConnectionRefusedError, match=r"10\.9\.9\.9.* no address outside"):
        await world.backends.connect(backend_of(listener), 4)
    assert world.state(listener) is HealthState.DOWN


async def test_where_no_app_is_let_no_backend_is(world: World) -> None:
    def check(_ip: Address, _port: int) -> None:
        raise ConnectionRefusedError(111, "the cluster's own")

    world.backends.check = check
    with server() as listening:
        (listener,) = world.add(f"5432:db.example:{port_of(listening)}")
        world.names["db.example"] = (HOST,)
        with pytest.raises(ConnectionRefusedError, match="the cluster's own"):
            await world.backends.connect(backend_of(listener), 4)


async def test_an_answer_is_used_for_its_time_and_when_there_is_none_beyond(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    world.names["db.example"] = (HOST,)
    assert await world.backends._addresses("db.example") == (HOST,)
    assert await world.backends._addresses("db.example") == (HOST,)
    assert world.asked == ["db.example"]
    await trio.sleep(module.AT_LEAST)
    del world.names["db.example"]
    assert await world.backends._addresses("db.example") == (HOST,)
    assert world.asked == ["db.example"] * 2
    with pytest.raises(OSError, match="no such name"):
        await world.backends._addresses("other.example")


async def test_their_health_is_looked_after(world: World) -> None:
    world.names["db.example"] = (HOST,)
    with server() as listening:
        up, down = world.add(f"1:db.example:{port_of(listening)}", f"2:db.example:{unused_port()}")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.backends.run)
            listening.setblocking(False)
            await trio.lowlevel.wait_readable(listening)
            while HealthState.UNKNOWN in (world.state(up), world.state(down)):  # noqa: ASYNC110 - nothing tells of it
                await trio.sleep(0.01)
            assert (world.state(up), world.state(down)) == (HealthState.UP, HealthState.DOWN)
            healths = GatewayHealths("n1", world.backends)
            told = await healths.all()
            assert of_backend(told, backend_of(down))["n1"].reason == "Connection refused"
            assert of_backend(told, ("absent", 1)) == {"n1": Health(HealthState.UNKNOWN)}
            answer = await healths.answer(None, AskHealths())  # type: ignore[arg-type]
            assert sorted(answer.backends)[0][0] == "db.example"
            assert await GatewayHealths("n2", None).answer(None, AskHealths()) == Healths([])  # type: ignore[arg-type]
            nursery.cancel_scope.cancel()


async def test_several_take_turns_and_those_that_are_down_are_last(world: World) -> None:
    world.names["db.example"] = (HOST,)
    with server() as one, server() as other:
        listeners = world.add(*(f"1:db.example:{port}" for port in (port_of(one), port_of(other), unused_port())))
        with pytest.raises(ConnectionRefusedError):
            await world.backends.connect(backend_of(listeners[2]), 4)
        chosen = []
        for _ in range(9):
            listener, made = await world.backends.connect_any(listeners, 4)
            made.close()
            chosen.append(listener)
        assert {chosen.count(each) for each in listeners[:2]} <= {4, 5}
        assert world.state(listeners[2]) is HealthState.DOWN
    with pytest.raises(ConnectionRefusedError):
        await world.backends.connect_any(listeners, 4)
    assert {world.state(each) for each in listeners} == {HealthState.DOWN}
