"""Keepers that bring their apps back: who may, and what comes with it."""

from __future__ import annotations

import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
import trio

from appswitch.edge.apps import Apps
from appswitch.errors import AppSwitchError
from appswitch.host import namespace
from appswitch.host.control_client import ControlClient
from appswitch.host.cookies import netns_of
from appswitch.host.keeper import Keeper
from appswitch.host.maker import Maker
from appswitch.host.paths import control_socket
from appswitch.host.rtnetlink import make_everything_local
from appswitch.model import App, Listener, Protocol
from appswitch.wire.journal import Known
from tests.edge.test_control_server import PATIENCE, World
from tests.harness import open_descriptors

WEB = App(7, IPv4Address("10.1.1.1"), "n1", "web")
TOKEN = bytes(range(16))


class Inside:
    """A thread in a network namespace of its own."""

    def __init__(self) -> None:
        self.thread = ThreadPoolExecutor(1, initializer=namespace.enter_new_namespace)
        self.thread.submit(make_everything_local, ["10.1.1.1"]).result()
        with self.thread.submit(socket.socket, socket.AF_UNIX).result() as any_socket:
            self.netns = netns_of(any_socket)

    async def run(self, function: Callable[[], Any]) -> Any:
        return await trio.to_thread.run_sync(self.thread.submit(function).result)

    async def resume(self, trap: Path, token: str = "", sockets: list[socket.socket] | None = None) -> str:
        """Asks as a keeper does; the reason why not, or "" when it has worked. The connection is closed."""

        def ask() -> str:
            client = ControlClient(trap)
            try:
                client.call("resume", {"token": token}, [each.fileno() for each in sockets or []])
            except AppSwitchError as error:
                return error.reason
            finally:
                client.close()
            return ""

        return str(await self.run(ask))


@pytest.fixture
def inside() -> Iterator[Inside]:
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)  # a keeper has it sent to its process, and waits for it
    made = Inside()
    yield made
    made.thread.shutdown()
    signal.signal(signal.SIGIO, before)


@pytest.fixture
async def world(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[World]:
    made = World(tmp_path)
    control_socket(tmp_path / "trap").symlink_to(made.path)
    nursery.start_soon(made.serve)
    yield made
    made.close()


def take_back(apps: Apps, known: Known, *receivers: Listener) -> None:
    """As at the start of the trap handler."""
    apps.take_back(known, list(receivers))


async def until(world: World, condition: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE):
        while not condition():
            await world.apps.changed()


@pytest.mark.root
async def test_a_keeper_brings_all_of_it_back(world: World, inside: Inside, tmp_path: Path) -> None:
    before = open_descriptors()
    bound = inside.thread.submit(socket.socket, socket.AF_INET, socket.SOCK_DGRAM).result()
    bound.bind(("0.0.0.0", 5000))
    there = Listener(20, WEB, 4, IPv4Address(0), 5000, listening=True, protocol=Protocol.UDP)
    closed = Listener(21, WEB, 4, IPv4Address(0), 5001, listening=True, protocol=Protocol.UDP)
    take_back(world.apps, Known(WEB, inside.netns), there, closed)

    def make() -> tuple[Keeper, Maker]:
        udp, *kept = [*namespace.open_dns_sockets(), namespace.open_diag_socket()]
        maker = Maker([udp])
        maker.far_end.close()
        return Keeper(tmp_path / "trap", Gone(), maker=maker, kept=kept), maker  # type: ignore[arg-type]

    keeper, maker = await inside.run(make)
    assert not await inside.run(keeper.answer)  # it has lost one, and finds another: nobody need be told
    assert keeper.pause() is None

    async def go_on() -> None:
        while True:
            await trio.lowlevel.wait_readable(maker._near)
            await inside.run(keeper.answer)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(go_on)  # the trap handler looks for receivers
        await until(world, lambda: bool(world.table.listeners))
        nursery.cancel_scope.cancel()
    assert list(world.table.listeners.values()) == [there]
    assert world.apps.namespaces[WEB.id].netns == inside.netns
    assert {each.type for each in world.apps.namespaces[WEB.id].dns} == {socket.SOCK_DGRAM, socket.SOCK_STREAM}
    bound.close()
    keeper.close()
    await until(world, lambda: not world.table.apps)
    await until(world, lambda: not world.apps.namespaces)
    assert open_descriptors() == before


class Gone:
    """A connection to a trap handler that has gone."""

    def is_closed(self) -> bool:
        return True

    def close(self) -> None:
        pass

    def signal_end(self) -> None:
        raise AssertionError("it has gone")


@pytest.mark.root
async def test_a_keeper_without_a_trap_handler_tries_again(inside: Inside, tmp_path: Path) -> None:
    keeper = Keeper(tmp_path / "trap", Gone())  # type: ignore[arg-type]
    assert keeper.answer()
    pauses = []
    for _ in range(9):
        keeper._again_at = 0.0
        assert not keeper.answer()
        pauses.append(keeper.pause() or 0.0)
    assert all(0 < pause <= 0.64 for pause in pauses)
    keeper.close()


@pytest.mark.root
async def test_a_namespace_that_nobody_knows(world: World, inside: Inside, tmp_path: Path) -> None:
    take_back(world.apps, Known(WEB, inside.netns + 1))
    with inside.thread.submit(namespace.open_diag_socket).result() as diag:
        assert await inside.resume(tmp_path / "trap", sockets=[diag]) == "unknown-app"


@pytest.mark.root
async def test_sockets_of_another_namespace(world: World, inside: Inside, tmp_path: Path) -> None:
    take_back(world.apps, Known(WEB, inside.netns))
    assert await inside.resume(tmp_path / "trap") == "bad-request"
    with namespace.open_diag_socket() as diag:
        assert await inside.resume(tmp_path / "trap", sockets=[diag]) == "bad-request"
    assert not world.apps.namespaces


@pytest.mark.root
async def test_an_app_that_has_its_keeper(world: World, inside: Inside, tmp_path: Path) -> None:
    take_back(world.apps, Known(WEB, inside.netns))
    with inside.thread.submit(namespace.open_diag_socket).result() as diag:
        client = await inside.run(lambda: ControlClient(tmp_path / "trap"))
        await inside.run(lambda: client.call("resume", {}, [diag.fileno()]))
        assert await inside.resume(tmp_path / "trap", sockets=[diag]) == "taken"
        client.close()


@pytest.mark.root
async def test_another_apps_token_is_worth_nothing_inside(world: World, inside: Inside, tmp_path: Path) -> None:
    other = App(8, IPv4Address("10.1.1.2"), "n1", "other", netns=False)
    take_back(world.apps, Known(WEB, inside.netns))
    take_back(world.apps, Known(other, token=TOKEN))
    with inside.thread.submit(namespace.open_diag_socket).result() as diag:
        client = await inside.run(lambda: ControlClient(tmp_path / "trap"))
        answer = await inside.run(lambda: client.call("resume", {"token": TOKEN.hex()}, [diag.fileno()]))
        assert answer == {"app": WEB.id}
        client.close()


@pytest.mark.root
async def test_once_it_has_ended_nobody_is_it(world: World, inside: Inside, tmp_path: Path) -> None:
    app = world.apps.new_app(name="web", ip=None)
    world.apps.bind_netns(app, inside.netns)
    world.apps.sweep()
    successor = Apps(world.table, world.sockets, world.epoch, world.apps.events)
    for known in world.apps.journal._apps.values():
        successor.take_back(known, [])
    world.server.apps = successor
    with inside.thread.submit(namespace.open_diag_socket).result() as diag:
        assert await inside.resume(tmp_path / "trap", sockets=[diag]) == "unknown-app"


@pytest.mark.parametrize("token", ["", "00", "zz", TOKEN.hex().upper()[:-1], TOKEN[::-1].hex(), TOKEN.hex() + "00"])
async def test_a_token_that_is_wrong(world: World, tmp_path: Path, token: str) -> None:
    take_back(world.apps, Known(App(8, WEB.ip, "n1", netns=False), token=TOKEN))
    answered = await world.call("resume", token=token)
    assert answered["error"]["reason"] in ("unknown-app", "bad-request")


async def test_a_token_that_is_right(world: World, tmp_path: Path) -> None:
    take_back(world.apps, Known(App(8, WEB.ip, "n1", netns=False), token=TOKEN))
    assert (await world.call("resume", token=TOKEN.hex()))["ok"] == {"app": 8}
