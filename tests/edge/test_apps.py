"""Who calls, and how long an app lives."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address
from pathlib import Path

import pytest
import trio
import trio.testing
from attrs import evolve

from appswitch.core import route
from appswitch.core.route import BindRequest
from appswitch.core.service_table import ServiceTable
from appswitch.edge.apps import Apps, Credentials, credentials_of
from appswitch.edge.epoch import Epoch
from appswitch.edge.events import Events
from appswitch.edge.listeners import ListenerSockets
from appswitch.host import namespace
from appswitch.host.cookies import netns_of
from appswitch.model import App, AppRecord, Listener, ListenerRecord
from appswitch.wire.trap import NO_TOKEN


class World:
    def __init__(self, directory: Path) -> None:
        self.table = ServiceTable("n1")
        self.sockets = ListenerSockets(directory)
        self.epoch = Epoch()
        self.apps = Apps(self.table, self.sockets, self.epoch, Events("n1"))

    def app(self, uid: int = 1000, name: str | None = None, netns: bool = True) -> App:
        return self.table.new_app(name=name, ip=IPv4Address("10.1.1.1"), uid=uid, netns=netns)

    def listener(self, app: App, port: int = 80) -> tuple[Listener, socket.socket]:
        plan = route.plan_bind(self.table, app, BindRequest(4, IPv4Address(0), port), random.Random(1))
        assert isinstance(plan, Listener)
        bound = self.sockets.open(plan)
        self.table.add_listener(plan)
        return plan, bound


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "listeners")
    yield made
    made.sockets.close()
    made.epoch.close()


HOST, APPS_OWN, OTHER = 1, 77, 78


def caller(netns: int, uid: int = 1000) -> Credentials:
    return Credentials(pid=5, uid=uid, netns=netns)


# --- who calls


def test_the_namespace_tells(world: World) -> None:
    app, other = world.app(), world.app()
    world.apps.bind_netns(app, APPS_OWN)
    world.apps.bind_netns(other, OTHER)
    assert world.apps.identify(caller(APPS_OWN), NO_TOKEN) == app
    assert world.apps.identify(caller(OTHER), NO_TOKEN) == other
    assert world.apps.identify(caller(HOST), NO_TOKEN) is None


def test_the_namespace_tells_whatever_user_the_program_has_become(world: World) -> None:
    app = world.app(uid=0)
    world.apps.bind_netns(app, APPS_OWN)
    assert world.apps.identify(caller(APPS_OWN, uid=33), NO_TOKEN) == app


def test_a_stolen_token_is_worth_nothing_inside_a_namespace(world: World) -> None:
    app, victim = world.app(), world.app(netns=False)
    world.apps.bind_netns(app, APPS_OWN)
    assert world.apps.identify(caller(APPS_OWN), world.apps.new_token(victim)) == app


def test_a_token_is_for_its_user(world: World) -> None:
    app = world.app(uid=1000, netns=False)
    token = world.apps.new_token(app)
    assert world.apps.identify(caller(HOST, uid=1000), token) == app
    assert world.apps.identify(caller(HOST, uid=1001), token) is None


def test_tokens_can_t_be_guessed(world: World) -> None:
    app = world.app(netns=False)
    tokens = {world.apps.new_token(app) for _ in range(100)}
    assert len(tokens) == 100
    assert NO_TOKEN not in tokens
    assert all(len(token) == 16 for token in tokens)
    first = min(tokens)
    assert world.apps.identify(caller(HOST), first[:15] + bytes([first[15] ^ 1])) is None
    assert world.apps.identify(caller(HOST), NO_TOKEN) is None


def test_an_app_that_has_ended_comes_back_when_a_process_of_it_calls(world: World) -> None:
    app = world.app()
    world.apps.bind_netns(app, APPS_OWN)
    world.apps.sweep()
    assert app.id not in world.table.apps
    assert world.apps.identify(caller(APPS_OWN), NO_TOKEN) == app
    assert app.id in world.table.apps


def test_what_is_remembered_of_ended_apps_has_an_end(world: World) -> None:
    living = world.app()
    world.apps.bind_netns(living, 10**6)
    with world.apps.hold(living):
        for number in range(5000):
            world.apps.bind_netns(world.app(), number)
            if number % 500 == 0:
                world.apps.sweep()
        world.apps.sweep()
        world.apps.bind_netns(world.app(), 10**7)
        known = [number for number in range(5000) if world.apps.identify(caller(number), NO_TOKEN)]
        assert 4000 < len(known) <= 4200
        assert known[-1] == 4999
        assert world.apps.identify(caller(10**6), NO_TOKEN) == living


# --- what the kernel says


@pytest.fixture
def elsewhere() -> Iterator[ThreadPoolExecutor]:
    """A thread in a network namespace of its own."""
    with ThreadPoolExecutor(1, initializer=namespace.enter_new_namespace) as thread:
        yield thread


def unix_pair(directory: Path, thread: ThreadPoolExecutor | None) -> tuple[socket.socket, socket.socket]:
    """(accepted, client): a connection from `thread`, or from this one."""

    def connect() -> socket.socket:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        client.connect(str(path))
        return client

    path = directory / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(path))
        listening.listen()
        client = thread.submit(connect).result() if thread else connect()
        accepted, _ = listening.accept()
    path.unlink()
    return accepted, client


@pytest.mark.root
def test_the_kernel_tells_namespaces_apart(tmp_path: Path, elsewhere: ThreadPoolExecutor) -> None:
    cookies = []
    for thread in (None, elsewhere, elsewhere):
        accepted, client = unix_pair(tmp_path, thread)
        with accepted, client:
            cookies.append(credentials_of(accepted).netns)
    with socket.socket() as ours:
        assert cookies[0] == netns_of(ours)
    assert cookies[1] == cookies[2] != cookies[0]


@pytest.mark.root
def test_a_connection_handed_over_stays_its_makers(tmp_path: Path, elsewhere: ThreadPoolExecutor) -> None:
    """Passing a channel on passes what it may do on, but gives nobody another identity."""
    accepted, client = unix_pair(tmp_path, elsewhere)
    with accepted:
        before = credentials_of(accepted)
        copy = os.dup(client.fileno())
        client.close()
        with socket.socket(fileno=copy) as handed_over:
            handed_over.send(b"from the host's thread")
            assert credentials_of(accepted) == before


def test_the_kernel_tells_process_and_user(tmp_path: Path) -> None:
    accepted, client = unix_pair(tmp_path, None)
    with accepted, client:
        said = credentials_of(accepted)
    assert (said.pid, said.uid) == (os.getpid(), os.geteuid())


# --- how long


def test_an_app_lives_while_it_is_held(world: World) -> None:
    app = world.app()
    with world.apps.hold(app):
        with world.apps.hold(app):
            world.apps.sweep()
        world.apps.sweep()
        assert app.id in world.table.apps
    world.apps.sweep()
    assert app.id not in world.table.apps


def test_an_app_lives_while_a_listener_of_it_does(world: World) -> None:
    """A daemon that closed all but its listener."""
    app = world.app()
    _, bound = world.listener(app)
    world.apps.sweep()
    assert app.id in world.table.apps
    bound.close()
    world.apps.sweep()
    assert not world.table.apps
    assert not world.table.listeners


def test_a_closed_port_can_be_bound_again_at_once(world: World) -> None:
    app = world.app()
    first, bound = world.listener(app)
    kept, other = world.listener(app, 81)
    bound.close()
    world.apps.forget_closed(app, 80)
    world.apps.forget_closed(app, 81)
    assert set(world.table.listeners) == {kept.id}
    again, bound = world.listener(app)
    assert again.id != first.id
    bound.close()
    other.close()


def test_a_listener_that_goes_twice(world: World) -> None:
    """The dialer and the sweep may both find out."""
    listener, bound = world.listener(world.app())
    bound.close()
    world.apps.listener_gone(listener)
    world.apps.listener_gone(listener)
    world.apps.sweep()


def test_other_nodes_look_after_theirs(world: World) -> None:
    app = world.app()
    world.table.put_remote("b", "1", AppRecord(evolve(app, node="b")))
    world.table.put_remote("b", "1/1", ListenerRecord(1, 4, app.ip, 80))
    _, bound = world.listener(app)
    bound.close()
    world.apps.forget_closed(app, 80)
    assert [each.app.node for each in world.table.at_port(app.ip, 80)] == ["b"]
    world.apps.sweep()
    assert [each.node for each in world.table.apps.values()] == ["b"]
    assert list(world.table.own_apps()) == []


async def test_the_sweep_finds_a_closed_listener_by_itself(
    world: World, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    app = world.app()
    _, bound = world.listener(app)
    nursery.start_soon(world.apps.keep_swept)
    await trio.sleep(60)
    assert app.id in world.table.apps
    bound.close()
    with trio.fail_after(1):  # "the app leaves `ps` within a second"
        while world.table.apps:
            await world.apps.changed()
    assert not world.table.listeners


async def test_an_app_goes_when_its_last_connection_does(
    world: World, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    app = world.app()
    nursery.start_soon(world.apps.keep_swept)
    with world.apps.hold(app):
        await trio.sleep(10)
        assert app.id in world.table.apps
    start = trio.current_time()
    with trio.fail_after(1):
        while world.table.apps:
            await world.apps.changed()
    assert trio.current_time() == start  # without waiting for the next sweep


async def test_until_ended(world: World, autojump_clock: trio.testing.MockClock, nursery: trio.Nursery) -> None:
    """Its caller's hold doesn't count; others' do, and listeners do."""
    nursery.start_soon(world.apps.keep_swept)
    app = world.app()
    _, bound = world.listener(app)
    done = trio.Event()

    async def wait() -> None:
        with world.apps.hold(app):
            await world.apps.until_ended(app)
        done.set()

    with world.apps.hold(app):
        nursery.start_soon(wait)
        await trio.sleep(5)
        assert not done.is_set()
    await trio.sleep(5)
    assert not done.is_set()
    bound.close()
    with trio.fail_after(1):
        await done.wait()
