"""Taking back what a predecessor had: what lives, and only what is its own."""

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
from attrs import evolve

from appswitch.core import route
from appswitch.core.route import BindRequest
from appswitch.core.service_table import ServiceTable
from appswitch.edge.apps import BACK_WITHIN, Apps, Credentials
from appswitch.edge.diag import Diag
from appswitch.edge.epoch import Epoch
from appswitch.edge.events import Events
from appswitch.edge.journal import open_journal
from appswitch.edge.listeners import ListenerSockets
from appswitch.edge.resumption import take_back
from appswitch.host.namespace import enter_new_namespace, open_diag_socket
from appswitch.model import App, Listener
from appswitch.wire.trap import NO_TOKEN

NETNS = 77
CALLER = Credentials(pid=5, uid=1000, netns=NETNS)


class Handler:
    """One after the other on the same directory; none is closed in order, as if it were killed."""

    def __init__(self, directory: Path) -> None:
        self.journal = open_journal(directory, "n1")
        head = self.journal.past.head
        self.sockets = ListenerSockets(directory / "listeners", head.salt)
        self.table = ServiceTable("n1", head.last_app)
        self.epoch = Epoch()
        self.apps = Apps(self.table, self.sockets, self.epoch, Events("n1"), self.journal)

    async def take_back(self) -> None:
        with open_diag_socket() as host:
            await take_back(self.apps, self.sockets, Diag(host))

    def app(self, number: int = 1) -> App:
        app = self.apps.new_app(name=f"app-{number}", ip=IPv4Address(f"10.1.1.{number}"), uid=1000)
        self.apps.bind_netns(app, NETNS - 1 + number)
        return app

    def listener(self, app: App, port: int = 80) -> tuple[Listener, socket.socket]:
        plan = route.plan_bind(self.table, app, BindRequest(4, IPv4Address(0), port, reuse_addr=True), random.Random(1))
        assert isinstance(plan, Listener)
        bound = self.sockets.open(plan)
        self.table.add_listener(plan)
        return plan, bound

    def close(self) -> None:
        self.sockets.close()
        self.epoch.close()
        self.journal.close()


class Life:
    """Of trap handlers."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.all: list[Handler] = []

    async def next(self) -> Handler:
        self.all.append(Handler(self.directory))
        await self.all[-1].take_back()
        return self.all[-1]


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    made = Life(tmp_path)
    yield made
    for each in made.all:
        each.close()


async def test_apps_and_listeners_are_there_again(life: Life) -> None:
    first = await life.next()
    app = first.app()
    bound, bound_socket = first.listener(app, 80)
    listening, listening_socket = first.listener(app, 81)
    listening_socket.listen()
    with bound_socket, listening_socket:
        second = await life.next()
        assert list(second.table.apps.values()) == [app]
        assert second.table.listeners == {bound.id: bound, listening.id: evolve(listening, listening=True)}
        assert second.apps.identify(CALLER, NO_TOKEN) == app
        assert second.table.next_listener_id() > listening.id
        assert second.app(2).id > app.id
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(second.sockets.path(listening.id))
        second.apps.sweep()
        assert len(second.table.listeners) == 2
    second.apps.sweep()
    assert second.table.listeners == {}
    assert list(second.sockets.files()) == []


async def test_it_may_happen_again(life: Life) -> None:
    app = (await life.next()).app()
    _, bound = life.all[0].listener(app)
    with bound:
        for _ in range(3):
            assert len((await life.next()).table.listeners) == 1


async def test_what_was_closed_meanwhile_has_gone(life: Life) -> None:
    first = await life.next()
    _, bound = first.listener(first.app())
    bound.close()
    second = await life.next()
    assert second.table.listeners == {}
    assert list(second.sockets.files()) == []


async def test_an_app_that_nobody_brings_back_has_gone(life: Life, autojump_clock: object) -> None:
    first = await life.next()
    app = first.app()
    second = await life.next()
    second.apps.sweep()
    assert list(second.table.apps) == [app.id]
    await trio.sleep(BACK_WITHIN)
    second.apps.sweep()
    assert not second.table.apps
    third = await life.next()
    assert not third.table.apps
    assert third.app().id > app.id


async def test_a_token_is_known_again(life: Life) -> None:
    first = await life.next()
    app = first.apps.new_app(name="x", ip=None, uid=1000, netns=False)
    token = first.apps.new_token(app)
    second = await life.next()
    assert second.apps.identify(Credentials(5, 1000, 1), token) == app
    assert second.apps.identify(Credentials(5, 1001, 1), token) is None
    assert second.apps.identify(Credentials(5, 1000, 1), bytes(16)) is None


async def test_draining_goes_on(life: Life) -> None:
    first = await life.next()
    app = first.app()
    first.table.drain([app])
    first.journal.set_draining(app, True)
    second = await life.next()
    assert second.table.draining == {app.id}


async def test_a_file_of_another_trap_handler(life: Life) -> None:
    first = await life.next()
    plan, bound = first.listener(first.app())
    other = ListenerSockets(life.directory / "listeners", salt=1)
    with bound, other.open(plan):
        other.close()
        second = await life.next()
        assert list(second.table.listeners) == [plan.id]
        assert len(second.sockets.files()) == 1


async def test_a_listener_of_an_unknown_app(life: Life) -> None:
    first = await life.next()
    _, bound = first.listener(first.table.new_app(name="stranger", ip=None))
    with bound:
        assert (await life.next()).table.listeners == {}


@pytest.mark.root
async def test_another_socket_in_its_place(life: Life) -> None:
    """An app of the same user could put one there, from its own namespace."""
    first = await life.next()
    _, bound = first.listener(first.app())
    (file,) = (life.directory / "listeners").iterdir()
    directory = os.open(file.parent, os.O_PATH)

    def replace() -> socket.socket:
        enter_new_namespace()  # of this thread alone
        file.unlink()
        false = socket.socket(socket.AF_UNIX)
        false.bind(f"/proc/self/fd/{directory}/{file.name}")
        false.listen()
        return false

    with bound, ThreadPoolExecutor(1) as thread, thread.submit(replace).result():
        second = await life.next()
        assert second.table.listeners == {}
        assert list(second.sockets.files()) == []
    os.close(directory)
