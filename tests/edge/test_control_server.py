"""The control socket's server: whatever a caller does, the others are served."""

from __future__ import annotations

import json
import os
import random
import socket
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel
import trio.testing
from attrs import evolve

from appswitch.core import route
from appswitch.core.route import BindRequest
from appswitch.core.service_table import ServiceTable
from appswitch.edge.apps import Apps
from appswitch.edge.control import ControlServer
from appswitch.edge.dns import DnsServer, Upstream
from appswitch.edge.epoch import Epoch
from appswitch.edge.events import Events
from appswitch.edge.externals import Externals
from appswitch.edge.healths import GatewayHealths
from appswitch.edge.listeners import ListenerSockets
from appswitch.edge.nodes import OneNode
from appswitch.edge.questions import Questions
from appswitch.host import namespace
from appswitch.host.cookies import netns_of
from appswitch.model import AppRecord, Connection, Listener, ListenerRecord, Node, State
from appswitch.wire.control import MAX_LINE, connection_row
from appswitch.wire.dns import Zone
from tests.harness import free_port, open_descriptors

PATIENCE = 20


class World:
    """A server on a socket in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "control"
        self.table = ServiceTable("n1")
        self.sockets = ListenerSockets(directory / "listeners")
        self.epoch = Epoch()
        self.apps = Apps(self.table, self.sockets, self.epoch, Events("n1"))
        zone = Zone("appswitch.local", self.table.resolve, self.table.names_of, self.table.owns)
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind(str(self.path))
        self.listening.listen()
        self.listening.setblocking(False)
        self.connections: list[Connection] = []
        self.server = ControlServer(
            self.apps,
            lambda _: DnsServer(zone, Upstream(()), lambda _: None),
            netns_of(self.listening),
            Questions(
                self.apps,
                OneNode(Node("n1")),
                self.snapshot,
                Externals(self.apps, None, GatewayHealths("n1", None)),
            ),
        )

    async def snapshot(self) -> list[Connection]:
        return self.connections

    async def serve(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.server.serve, self.listening)
            nursery.start_soon(self.apps.keep_swept)

    async def connect(self) -> trio.SocketStream:
        return await trio.open_unix_socket(str(self.path))

    async def call(self, name: str, /, **arguments: object) -> Any:
        async with await self.connect() as stream:
            return await call(stream, name, **arguments)

    def listener(self, port: int = 80) -> socket.socket:
        """Something that the first app serves."""
        app = next(iter(self.table.apps.values()))
        plan = route.plan_bind(self.table, app, BindRequest(4, IPv4Address(0), port), random.Random(1))
        assert isinstance(plan, Listener)
        bound = self.sockets.open(plan)
        self.table.add_listener(plan)
        self.table.mark_listening(plan.id)
        self.apps.note_change()
        return bound

    def close(self) -> None:
        self.sockets.close()
        self.epoch.close()
        self.listening.close()


async def call(stream: trio.SocketStream, name: str, /, **arguments: object) -> Any:
    await stream.send_all(json.dumps({"call": name, **arguments}).encode() + b"\n")
    return await answer(stream)


async def answer(stream: trio.SocketStream) -> Any:
    with trio.fail_after(PATIENCE):
        line = b""
        while not line.endswith(b"\n"):
            data = await stream.receive_some()
            assert data, "closed without an answer"
            line += data
    return json.loads(line)


async def ended(stream: trio.SocketStream) -> bool:
    with trio.fail_after(PATIENCE):
        try:
            return await stream.receive_some() == b""
        except trio.BrokenResourceError:
            return True


@pytest.fixture
async def world(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[World]:
    made = World(tmp_path)
    nursery.start_soon(made.serve)
    yield made
    assert (await made.call("nodes"))["ok"][0]["name"] == "n1"  # whatever the test did, the next one is served
    made.close()


# --- malformed


@pytest.mark.parametrize(
    "line",
    [b"\n", b"{}\n", b"no json\n", b'{"call": "no-such"}\n', b"\xff\n", b"[" * 9999 + b"\n", b'{"call": "ps"}{\n'],
)
async def test_a_request_that_can_t_be_read(world: World, line: bytes) -> None:
    async with await world.connect() as stream:
        await stream.send_all(line)
        error = (await answer(stream))["error"]
        assert error["reason"] == "bad-request"
        assert error["message"]
        assert await ended(stream)


async def test_a_line_without_end(world: World) -> None:
    async with await world.connect() as stream:
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b" " * (MAX_LINE * 4))


@pytest.mark.parametrize("said", [b"", b'{"call": "ps"', b'{"call": "ps"}\n', b'{"call": "spawn", "netns": false}\n'])
async def test_callers_that_go_early(world: World, said: bytes) -> None:
    for _ in range(20):
        stream = await world.connect()
        if said:
            await stream.send_all(said)
        await stream.aclose()
    await trio.testing.wait_all_tasks_blocked(0.01)
    while world.table.apps:
        await world.apps.changed()


async def test_several_calls_on_one_connection(world: World) -> None:
    async with await world.connect() as stream:
        for _ in range(3):
            assert await call(stream, "ps") == {"ok": []}
        assert (await call(stream, "resolve", name="nothing"))["error"]["reason"] == "unknown-name"
        assert await call(stream, "services") == {"ok": []}


# --- what there is


async def test_lists(world: World) -> None:
    async with await world.connect() as stream:
        made = (await call(stream, "spawn", name="web", ip="10.1.1.1", tags=["grp=1"], netns=False))["ok"]
        with world.listener(80):
            (app,) = (await world.call("ps"))["ok"]
            assert (app["id"], app["name"], app["ip"], app["tags"]) == (made["app"], "web", "10.1.1.1", ["grp=1"])
            assert app["pid"] == os.getpid()
            (service,) = (await world.call("services"))["ok"]
            assert (service["ip"], service["port"], service["app"]) == ("10.1.1.1", 80, made["app"])
            (name,) = (await world.call("resolve", name="WEB.appswitch.local."))["ok"]
            assert (name["name"], name["ip"], name["instances"]) == ("web", "10.1.1.1", 1)


class TwoNodes(OneNode):
    """Node b is there, too, with a table of its own, which never becomes the same."""

    def called(self, name: str) -> Node:
        return Node(name, address="10.0.0.2", port=7947)

    async def until_agreed(self) -> None:
        await trio.sleep_forever()


async def test_nodes_that_dont_agree(world: World) -> None:
    world.server.questions.nodes = TwoNodes(Node("n1"))
    assert (await world.call("nodes", wait=True, timeout=0.01))["error"]["reason"] == "no-agreement"
    assert (await world.call("nodes", wait=False))["ok"][0]["name"] == "n1"


async def test_lists_with_another_node(world: World) -> None:
    app = world.table.new_app(name="web", ip=IPv4Address("10.9.9.1"))
    world.table.put_remote("b", "1", AppRecord(evolve(app, node="b")))
    world.table.put_remote("b", "1/5", ListenerRecord(5, 4, app.ip, 80))
    world.table.unreachable.add("b")
    world.server.questions.nodes = TwoNodes(Node("n1"))
    assert [(row["id"], row["node"], row["state"]) for row in (await world.call("ps"))["ok"]] == [
        (1, "b", "suspect"), (1, "n1", "up"),
    ]  # fmt: skip
    (service,) = (await world.call("services"))["ok"]
    assert (service["app"], service["node"], service["real"]) == (1, "b", "tcp:10.0.0.2:7947")
    assert (await world.call("wait-for", services=["web:80", "10.9.9.1:80"], timeout=0))["ok"] == []
    assert (await world.call("drain", app="b/1"))["error"]["reason"] == "elsewhere"
    assert [row["app"] for row in (await world.call("drain", app="web", wait=False))["ok"]] == [1]
    assert world.table.draining == {app.id}
    answer = (await world.call("why", client="b/1", dest="web:80"))["ok"][0]
    assert (answer["client_app"], answer["client_node"], answer["others"]) == (1, "b", [])
    answer = (await world.call("why", client="web", dest="web:80"))["ok"][0]
    assert (answer["client_node"], answer["others"]) == ("n1", ["b/1"])


async def test_connections(world: World) -> None:
    app = world.table.new_app(name="web", ip=IPv4Address("10.9.9.1"))
    one = Connection(app, (app.ip, 4000), (app.ip, 80), app, None, "n1", State.ESTABLISHED)
    world.connections = [one] * 150
    assert (await world.call("connections"))["ok"] == [connection_row(one)] * 150


async def test_wait_for(world: World, nursery: trio.Nursery) -> None:
    answers: list[Any] = []

    async def wait(*services: str) -> None:
        answers.append(await world.call("wait-for", services=list(services)))

    async with await world.connect() as stream:
        await call(stream, "spawn", name="web", ip="10.1.1.1", netns=False)
        async with trio.open_nursery() as waiting:
            waiting.start_soon(wait, "web:80", "10.1.1.1:81", "web.appswitch.local:80")
            await trio.testing.wait_all_tasks_blocked(0.01)
            with world.listener(80):
                await trio.testing.wait_all_tasks_blocked(0.01)
                assert not answers
                with world.listener(81):
                    while not answers:
                        await trio.lowlevel.checkpoint()
    assert answers == [{"ok": []}]


async def test_wait_for_a_while(world: World) -> None:
    async with await world.connect() as stream:
        await call(stream, "spawn", name="web", ip="10.1.1.1", netns=False)
        with world.listener(80):
            answer = await world.call("wait-for", services=["web:80", "web:81", "db:80"], timeout=0.01)
            assert answer == {"ok": ["web:81", "db:80"]}
            assert await world.call("wait-for", services=["web:80", "WEB.appswitch.local.:80"], timeout=0) == {"ok": []}
    assert (await world.call("wait-for", services=["x:1"], timeout=-1))["error"]["reason"] == "bad-request"


@pytest.mark.parametrize("service", ["", "web", "web:", ":80", "web:0", "web:65536", "web:x", "web:-1", "web:8²"])
async def test_wait_for_what_is_no_service(world: World, service: str) -> None:
    assert (await world.call("wait-for", services=[service]))["error"]["reason"] == "bad-service"


async def test_who_waits_and_goes_is_forgotten(world: World) -> None:
    await world.call("nodes")
    await trio.testing.wait_all_tasks_blocked(0.01)
    before = open_descriptors()
    for _ in range(10):
        stream = await world.connect()
        await stream.send_all(b'{"call": "wait-for", "services": ["web:80"]}\n')
        await trio.testing.wait_all_tasks_blocked(0.01)
        await stream.aclose()
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert open_descriptors() == before


# --- spawn


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"name": "a b"}, "bad-name"),
        ({"name": ""}, "bad-name"),
        ({"ip": "127.0.0.1"}, "bad-ip"),
        ({"ip": ""}, "bad-ip"),
        ({"tags": ["x"]}, "bad-tag"),
        ({"netns": True}, "no-namespace"),  # we are in the server's namespace
        ({"name": "taken", "ip": "10.1.1.2"}, "name-taken"),
    ],
)
async def test_refused(world: World, arguments: dict[str, object], reason: str) -> None:
    async with await world.connect() as other:
        await call(other, "spawn", name="taken", ip="10.1.1.1", netns=False)
        async with await world.connect() as stream:
            error = (await call(stream, "spawn", **{"netns": False, **arguments}))["error"]
            assert error["reason"] == reason
            assert await ended(stream)
        assert len(world.table.apps) == 1


async def test_an_app_lives_as_long_as_its_connection(world: World) -> None:
    async with await world.connect() as stream:
        made = (await call(stream, "spawn", netns=False))["ok"]
        assert len(bytes.fromhex(made["token"])) == 16
        assert [app["id"] for app in (await world.call("ps"))["ok"]] == [made["app"]]
    with trio.fail_after(1):
        while world.table.apps:
            await world.apps.changed()


@pytest.fixture
def elsewhere() -> Iterator[ThreadPoolExecutor]:
    """A thread in a network namespace of its own."""
    with ThreadPoolExecutor(1, initializer=namespace.enter_new_namespace) as thread:
        yield thread


def connect_from(world: World, thread: ThreadPoolExecutor) -> trio.SocketStream:
    def connect() -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(world.path))
        return client

    return trio.SocketStream(trio.socket.from_stdlib_socket(thread.submit(connect).result()))


async def spawn_inside(world: World, inside: ThreadPoolExecutor, **arguments: object) -> tuple[trio.SocketStream, Any]:
    """As `appswitch spawn` does it: the connection that makes the app, and the answer."""
    async with await world.connect() as outside:
        ticket = (await call(outside, "ticket"))["ok"]
        stream = connect_from(world, inside)
        return stream, await call(stream, "spawn", ticket=ticket, **arguments)


@pytest.mark.root
async def test_the_namespace_that_calls_is_the_apps(world: World, elsewhere: ThreadPoolExecutor) -> None:
    stream, answered = await spawn_inside(world, elsewhere, name="web", ip="10.1.1.1")
    async with stream:
        assert answered["ok"]["ip"] == "10.1.1.1"
        assert not answered["ok"]["token"]
        (app,) = world.table.apps.values()
        with elsewhere.submit(socket.socket, socket.AF_UNIX).result() as inside:
            assert world.apps.owner_of(netns_of(inside)) == app


@pytest.mark.root
async def test_a_namespace_that_is_an_apps_is_not_given_away(world: World, elsewhere: ThreadPoolExecutor) -> None:
    stream, _ = await spawn_inside(world, elsewhere, name="web")
    async with stream:
        again, answered = await spawn_inside(world, elsewhere, name="db")
        async with again:
            assert answered["error"]["reason"] == "taken"
        assert [app.name for app in world.table.apps.values()] == ["web"]
    with trio.fail_after(PATIENCE):
        while world.table.apps:
            await world.apps.changed()
    other, answered = await spawn_inside(world, elsewhere, name="db")
    async with other:
        assert "ok" in answered


@pytest.mark.root
async def test_a_ticket_is_for_one_app_and_while_its_connection_lasts(
    world: World, elsewhere: ThreadPoolExecutor
) -> None:
    async def reason(ticket: str) -> str:
        async with connect_from(world, elsewhere) as stream:
            answered = await call(stream, "spawn", ticket=ticket)
            return str(answered["error"]["reason"]) if "error" in answered else "none"

    async with await world.connect() as outside:
        ticket = (await call(outside, "ticket"))["ok"]
        other = (await call(outside, "ticket"))["ok"]
        assert ticket != other
        assert await reason(ticket) == "none"
        assert await reason(ticket) == "foreign-namespace"
        for guess in ("", ticket[:-1], other.upper() + "x"):
            assert await reason(guess) == "foreign-namespace"
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert await reason(other) == "foreign-namespace"
    assert not world.server._tickets


@pytest.mark.root
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("spawn", {"netns": False}),
        ("spawn", {}),
        ("ticket", {}),
    ],
)
async def test_from_inside_no_app_is_made(
    world: World, elsewhere: ThreadPoolExecutor, name: str, arguments: dict[str, object]
) -> None:
    async with connect_from(world, elsewhere) as stream:
        assert (await call(stream, name, **arguments))["error"]["reason"] == "foreign-namespace"
        assert await ended(stream)
    assert not world.table.apps


@pytest.mark.root
async def test_from_inside_one_may_ask(world: World, elsewhere: ThreadPoolExecutor) -> None:
    async with connect_from(world, elsewhere) as stream:
        assert (await call(stream, "ps"))["ok"] == []
        assert (await call(stream, "nodes"))["ok"]


async def send_with(stream: trio.SocketStream, *passed: int) -> None:
    line = b'{"call": "spawn", "netns": false, "name": "web", "ip": "10.1.1.1"}\n'
    socket.send_fds(stream.socket._sock, [line], list(passed))  # type: ignore[attr-defined]


async def test_dns_sockets_that_come_along_are_served(world: World) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams, socket.socket() as listening:
        port = free_port()
        for each in (datagrams, listening):
            each.bind(("127.0.0.1", port))
        listening.listen()
        async with await world.connect() as stream:
            await send_with(stream, datagrams.fileno(), listening.fileno())
            assert "ok" in await answer(stream)
            query = b"\x12\x34\x01\0\0\1\0\0\0\0\0\0\3web\0\0\1\0\1"
            with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                await client.connect(("127.0.0.1", port))
                await client.send(query)
                with trio.fail_after(PATIENCE):
                    assert (await client.recv(512)).endswith(bytes([10, 1, 1, 1]))
            async with await trio.open_tcp_stream("127.0.0.1", port) as client_stream:
                await client_stream.send_all(len(query).to_bytes(2, "big") + query)
                with trio.fail_after(PATIENCE):
                    assert (await client_stream.receive_some()).endswith(bytes([10, 1, 1, 1]))


async def test_what_comes_along_is_closed_with_the_app(world: World) -> None:
    await world.call("nodes")
    await trio.testing.wait_all_tasks_blocked(0.01)
    before = open_descriptors()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams, socket.socket() as listening:
        datagrams.bind(("127.0.0.1", 0))
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        async with await world.connect() as stream:
            await send_with(stream, datagrams.fileno(), listening.fileno())
            assert "ok" in await answer(stream)
    while world.table.apps:
        await world.apps.changed()
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert open_descriptors() == before


def pipe_end() -> int:
    read_end, write_end = os.pipe()
    os.close(write_end)
    return read_end


def closed_udp() -> int:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM).detach()


def not_listening() -> int:
    return socket.socket(socket.AF_INET).detach()


def unix() -> int:
    return socket.socket(socket.AF_UNIX).detach()


def connected() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return socket.create_connection(server.getsockname()).detach()


@pytest.mark.parametrize("make", [pipe_end, unix, not_listening, connected], ids=lambda make: make.__name__)
async def test_other_descriptors_are_refused(world: World, make: Any) -> None:
    """And closed; a caller of ours with a fault is no reason to end."""
    await world.call("nodes")
    await trio.testing.wait_all_tasks_blocked(0.01)
    before = open_descriptors()
    passed = make()
    async with await world.connect() as stream:
        await send_with(stream, passed)
        os.close(passed)
        assert (await answer(stream))["error"]["reason"] == "bad-request"
        assert await ended(stream)
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert open_descriptors() == before
    assert not world.table.apps


async def test_descriptors_with_other_calls_and_too_many_of_them_are_closed(world: World) -> None:
    await world.call("nodes")
    await trio.testing.wait_all_tasks_blocked(0.01)
    before = open_descriptors()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        for line in (b'{"call": "ps"}\n', b"junk\n", b"no end"):
            async with await world.connect() as stream:
                socket.send_fds(stream.socket._sock, [line], [one.fileno()] * 5)  # type: ignore[attr-defined]
                if line.endswith(b"\n"):
                    await answer(stream)
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert open_descriptors() == before
