"""TCP between two nodes, both in this process, over loopback: announced, judged, connected, delivered."""

from __future__ import annotations

import errno
import os
import random
import select
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import msgspec
import pytest
import trio
from attrs import evolve

from appswitch.core import route
from appswitch.core.balance import Balancer
from appswitch.core.policy import Action, Default, Policy, Rule, Selector
from appswitch.core.route import Reach
from appswitch.core.service_table import ServiceTable
from appswitch.edge import arrivals, expected, remote
from appswitch.edge.apps import Apps
from appswitch.edge.arrivals import Arrivals
from appswitch.edge.deliver import Deliverer
from appswitch.edge.diag import Diag
from appswitch.edge.dial import Asked, Dialer, Dialled
from appswitch.edge.epoch import Epoch
from appswitch.edge.events import Events, Filter
from appswitch.edge.expected import ExpectedConnections
from appswitch.edge.listeners import ListenerSockets
from appswitch.edge.loads import Loads
from appswitch.edge.local_unix import LocalUnix
from appswitch.edge.named import NamedSockets
from appswitch.edge.peer_channel import Caller, UnreachableError
from appswitch.edge.peers import Peers, listen
from appswitch.edge.policing import Policing
from appswitch.edge.relay import Relay
from appswitch.edge.relayed import Relayed
from appswitch.edge.remote import Remote
from appswitch.edge.tcp_names import TcpNames
from appswitch.host import namespace
from appswitch.model import App, Event, Expose, Exposure, GatewayRecord, Kind, Listener, State
from appswitch.wire import socknames, tcp_diag
from appswitch.wire.addresses import pack_ip
from appswitch.wire.peer import Announce, Announced
from appswitch.wire.peer_channel import Session, arrival
from appswitch.wire.proxy import encode_head
from appswitch.wire.socknames import Medium

KEY = b"k" * 32
WEB = IPv4Address("10.1.1.2")
PATIENCE = 5.0
CLOSED = 7  # TCP_CLOSE of linux/tcp_states.h


class Node:
    """A trap handler's parts for TCP."""

    def __init__(self, name: str, directory: Path, stack: ExitStack, addresses: dict[str, tuple[str, int]]) -> None:
        self.name = name
        self.stack = stack
        self.table = ServiceTable(name)
        self.sockets = ListenerSockets(directory / name)
        stack.callback(self.sockets.close)
        epoch = Epoch()
        stack.callback(epoch.close)
        self.events = Events(name)
        self.apps = Apps(self.table, self.sockets, epoch, self.events)
        self.names = TcpNames()
        self.names.diags.append(Diag(stack.enter_context(namespace.open_diag_socket())))
        self.named = NamedSockets(self.sockets, self.apps.listener_gone, random.Random(1), self.names.is_taken)
        self.peers = Peers(name, KEY, addresses.get)
        self.refreshed: list[str] = []
        self.policing = Policing()
        self.expected = ExpectedConnections()
        deliverer = Deliverer(self.named, self.names)
        self.arrivals = Arrivals(self.apps, self.policing, deliverer, self.expected, self.refresh)
        self.peers.handlers[Announce] = self.arrivals.announce
        self.peers.arrived = self.expected.arrived
        self.balancer = Balancer(self.table)
        unix, way = LocalUnix(self.named), Remote(self.peers, self.named, self.names)
        self.dialer = Dialer(self.table, self.balancer, Loads(self.names.connections), unix, unix, way)

    async def refresh(self, node: str) -> None:
        await trio.lowlevel.checkpoint()
        self.refreshed.append(node)

    def serve(self, app: App, port: int = 80, queue: int = 50) -> tuple[Listener, socket.socket]:
        """`app` listens."""
        listener = Listener(self.table.next_listener_id(), app, 4, app.ip, port, listening=True)
        self.table.add_listener(listener)
        listening = self.stack.enter_context(self.sockets.open(listener))
        listening.listen(queue)
        return listener, listening

    def tell(self, other: Node) -> None:
        """The other node hears of all that is here."""
        for app in self.table.own_apps():
            keys = [str(app.number), *(f"{app.number}/{each.number}" for each in self.table.listeners_of(app))]
            for key in keys:
                other.table.put_remote(self.name, key, self.table.record(key))

    async def connect(self, app: App, port: int = 80, *, nonblocking: bool = False, own_port: int = 0) -> Dialled:
        dest = WEB, port

        def find() -> Reach:
            bound = (app.ip, own_port) if own_port else None
            plan = route.plan_connect(self.table, self.policing.policy, app, *dest, gateway=False, bound=bound)
            if not isinstance(plan, Reach):
                raise ConnectionRefusedError(errno.ECONNREFUSED, plan)
            return plan

        dialled = await self.dialer.connect(find(), find, Asked(app, dest, 4, nonblocking), PATIENCE)
        self.stack.enter_context(dialled.client)
        return dialled

    def happened(self, kind: Kind) -> list[Event]:
        return self.events.recent(Filter(frozenset({kind})))


class World:
    """Two nodes, and a client on the first one of a server on the second one."""

    def __init__(self, directory: Path, stack: ExitStack, nursery: trio.Nursery) -> None:
        self.addresses: dict[str, tuple[str, int]] = {}
        self.nursery = nursery
        self.stack = stack
        self.directory = directory
        self.a, self.b = (Node(name, directory, stack, self.addresses) for name in "ab")

    async def start(self) -> None:
        for node in (self.a, self.b):
            await self.run(node)
        self.client = self.a.table.new_app(name="client", ip=IPv4Address("10.1.1.1"))
        self.server = self.b.table.new_app(name="web", ip=WEB)
        self.listener, self.listening = self.b.serve(self.server)
        self.tell()

    async def run(self, node: Node, ip: str = "127.0.0.1") -> None:
        listening = self.stack.enter_context(listen(ip, 0))
        self.addresses[node.name] = ip, listening.getsockname()[1]
        await self.nursery.start(node.peers.serve, listening)
        self.nursery.start_soon(node.expected.keep_swept)

    def tell(self) -> None:
        self.a.tell(self.b)
        self.b.tell(self.a)

    async def take(self) -> tuple[bytes, socket.socket]:
        return await take(self.listening)


@pytest.fixture
async def world(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[World]:
    with ExitStack() as stack:
        made = World(tmp_path, stack, nursery)
        await made.start()
        yield made


async def take(listening: socket.socket) -> tuple[bytes, socket.socket]:
    """As accept of the shim: the name that it came by, and what was delivered."""
    with trio.fail_after(PATIENCE):
        await trio.lowlevel.wait_readable(listening)
    carrier, name = listening.accept()
    with carrier:
        with trio.fail_after(PATIENCE):
            await trio.lowlevel.wait_readable(carrier)
        _, (fd,), _, _ = socket.recv_fds(carrier, 1, 2)
        return name, socket.socket(fileno=fd)


async def receive(end: socket.socket) -> bytes:
    end.setblocking(False)
    with trio.fail_after(PATIENCE):
        await trio.lowlevel.wait_readable(end)
    return end.recv(100)


def announcement(world: World) -> Announce:
    source, dest = pack_ip(world.client.ip), pack_ip(WEB)
    return Announce(world.client.number, world.listener.number, source, 7, dest, 80, 4)


# --- one connection


@pytest.mark.parametrize("nonblocking", [False, True])
async def test_two_programs_have_the_two_ends(world: World, nonblocking: bool) -> None:
    dialled = await world.a.connect(world.client, nonblocking=nonblocking)
    if not nonblocking:
        assert select.select([], [dialled.client], [], 0)[1]
        assert dialled.client.getpeername()
    packed, server = await world.take()
    with server:
        assert server.getpeername()[1] == dialled.client.getsockname()[1]
        dialled.client.send(b"question")
        assert await receive(server) == b"question"
        server.send(b"answer")
        assert await receive(dialled.client) == b"answer"
    read, own = socknames.read_client_name(packed), dialled.name
    assert read is not None
    assert own is not None
    assert (read.source[0], read.dest) == (world.client.ip, (WEB, 80))
    assert own.ends == (read.source, read.dest)
    assert (own.medium, socknames.read_medium(packed)) == (Medium.TCP_CLIENT, Medium.TCP_SERVER)


@pytest.mark.parametrize("nonblocking", [False, True])
async def test_hosts_with_ipv6_addresses(world: World, nonblocking: bool) -> None:
    await world.run(world.b, "::1")
    dialled = await world.a.connect(world.client, nonblocking=nonblocking)
    _, server = await world.take()
    with server:
        dialled.client.send(b"question")
        assert await receive(server) == b"question"


async def test_where_the_kernel_sends_no_data_with_a_syn(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "TCP_FASTOPEN_NO_COOKIE", 9999)  # ENOPROTOOPT: as an older kernel says
    dialled = await world.a.connect(world.client, nonblocking=True)
    dialled.client.send(b"question")
    _, server = await world.take()
    with server:
        assert await receive(server) == b"question"


async def test_a_kernel_that_connects_but_keeps_the_data_to_itself(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after it has met a firewall that eats such SYNs: sendto says EINPROGRESS."""
    monkeypatch.setattr(socket, "MSG_FASTOPEN", 0)
    monkeypatch.setattr(remote, "_start", connect_alone)
    dialled = await world.a.connect(world.client, nonblocking=True)
    dialled.client.send(b"question")
    _, server = await world.take()
    with server:
        assert await receive(server) == b"question"


def connect_alone(client: socket.socket, address: tuple[str, int], _first: bytes) -> int:
    client.connect_ex(address)
    return 0


async def test_a_program_may_have_the_socket_before_the_connection_stands(world: World) -> None:
    """The other host doesn't take the connection yet: its queue is full (tcp(7), listen(2))."""
    full = world.stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
    world.stack.enter_context(socket.create_connection(full.getsockname()))
    right = world.addresses["b"]

    async def announce(caller: Caller, said: Announce) -> Announced:
        answer = await world.b.arrivals.announce(caller, said)
        world.addresses["b"] = full.getsockname()
        return answer

    world.b.peers.handlers[Announce] = announce
    with trio.fail_after(PATIENCE):
        dialled = await world.a.connect(world.client, nonblocking=True)
        assert dialled.client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == tcp_diag.SYN_SENT
        (row,) = await world.a.names.connections()
        assert row.state is State.QUEUED
        with full.accept()[0]:
            pass  # now there is room; the SYN is sent again within a second
        await trio.lowlevel.wait_writable(dialled.client)
    dialled.client.send(b"question")
    server, _ = full.accept()
    with server, socket.create_connection(right) as forwarded:  # a NAT between the hosts, say
        forwarded.send(await receive(server))
        _, delivered = await world.take()
        with delivered:
            assert await receive(delivered) == b"question"


async def test_both_nodes_list_their_ends(world: World) -> None:
    dialled = await world.a.connect(world.client)
    _, server = await world.take()
    assert dialled.name is not None
    (at_a,), (at_b,) = await world.a.names.connections(), await world.b.names.connections()
    assert (at_a.source, at_a.dest) == (at_b.source, at_b.dest) == dialled.name.ends
    assert (at_a.node, at_b.node) == ("a", "b")
    assert (at_a.state, at_b.state) == (State.ESTABLISHED, State.ESTABLISHED)
    assert at_a.inodes == (os.fstat(dialled.client.fileno()).st_ino, 0)
    assert at_b.inodes == (0, os.fstat(server.fileno()).st_ino)
    assert [(at.client and at.client.number, at.server and at.server.number) for at in (at_a, at_b)] == [
        (world.client.number, world.server.number)
    ] * 2
    server.close()
    assert await receive(dialled.client) == b""
    (at_a,) = await world.a.names.connections()
    assert at_a.state is State.CLOSING
    assert await world.b.names.connections() == []


async def test_both_apps_and_nobody_else_may_ask_for_a_name(world: World) -> None:
    await world.a.connect(world.client)
    _, server = await world.take()
    stranger = world.b.table.new_app(name="stranger", ip=None)
    cookie = server.getsockopt(socket.SOL_SOCKET, 57, 8)
    with server:
        assert world.b.names.find(struct.unpack("Q", cookie)[0], world.server) is not None
        assert world.b.names.find(struct.unpack("Q", cookie)[0], stranger) is None


async def test_the_servers_node_tells_of_it(world: World) -> None:
    await world.a.connect(world.client)
    _, server = await world.take()
    server.close()
    (event,) = world.b.happened(Kind.CONNECT)
    assert (event.app and event.app.node, event.server, event.address, event.medium) == ("a", world.server, WEB, "tcp")


# --- who may


async def refused(connect: Callable[[], Awaitable[Dialled]]) -> None:
    with pytest.raises(ConnectionRefusedError):
        await connect()


async def test_the_servers_table_and_policy_decide(world: World) -> None:
    del world.b.table.apps[world.server.id]  # put in anew, with a tag that node a hasn't heard of
    tagged = evolve(world.server, tags=(("grp", "db"),))
    world.b.table.apps[tagged.id] = tagged
    world.b.table.add_listener(evolve(world.listener, app=tagged))
    await refused(lambda: world.a.connect(world.client))
    (event,) = world.b.happened(Kind.DENY)
    assert (event.app and event.app.node, event.server) == ("a", tagged)


async def test_a_client_that_the_servers_node_has_not_heard_of_is_asked_for(world: World) -> None:
    fresh = world.a.table.new_app(name="fresh", ip=IPv4Address("10.1.1.9"))

    async def refresh(node: str) -> None:
        await trio.lowlevel.checkpoint()
        assert node == "a"
        world.a.tell(world.b)

    world.b.arrivals.refresh = refresh
    await world.a.connect(fresh)
    packed, server = await world.take()
    server.close()
    read = socknames.read_client_name(packed)
    assert read is not None
    assert read.source[0] == fresh.ip


async def test_one_that_is_not_known_there_has_to_wait(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's trap handler may have only just started: that is no word of its server's that nobody listens."""
    monkeypatch.setattr("appswitch.edge.dial.UNREACHABLE_AFTER", 0.2)
    ghost = world.a.table.new_app(name="ghost", ip=IPv4Address("10.1.1.9"))
    with pytest.raises(OSError, match="no node") as raised:
        await world.a.connect(ghost)
    assert raised.value.errno == errno.EHOSTUNREACH
    assert set(world.b.refreshed) == {"a"}


async def test_a_drained_instance_takes_nobody(world: World) -> None:
    world.b.table.drain([world.server])
    await refused(lambda: world.a.connect(world.client))


async def test_a_listener_that_has_closed(world: World) -> None:
    world.listening.close()
    await refused(lambda: world.a.connect(world.client))
    assert world.listener.id not in world.b.table.listeners, "the table knows now"


async def test_one_that_is_denied_between_announce_and_arrival_is_reset(world: World) -> None:
    async def announce(caller: Caller, said: Announce) -> Announced:
        answer = await world.b.arrivals.announce(caller, said)
        world.b.policing.policy = Policy(default=Default.DENY)
        return answer

    world.b.peers.handlers[Announce] = announce
    dialled = await world.a.connect(world.client)
    with pytest.raises(ConnectionResetError):
        await receive(dialled.client)
    assert world.b.happened(Kind.DENY)


async def test_a_preamble_is_good_once_and_for_its_session_only(world: World) -> None:
    request = announcement(world)
    answer, session = await world.a.peers.ask_in_session("b", request, PATIENCE)
    assert isinstance(answer, Announced)
    wrong = [arrival(Session(b"s" * 32), answer.number), arrival(session, answer.number ^ 1)]
    for preamble in wrong:
        with socket.create_connection(world.addresses["b"]) as client:
            client.send(preamble)
            assert await receive(client) == b""
    right = arrival(session, answer.number)
    with (
        socket.create_connection(world.addresses["b"]) as client,
        socket.create_connection(world.addresses["b"]) as again,
    ):
        client.send(right)
        (await world.take())[1].close()
        again.send(right)
        assert await receive(again) == b""


async def test_the_oldest_of_too_many_announces_goes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each holds a descriptor: whoever announces and never comes must not use up all of them."""
    monkeypatch.setattr(expected, "MOST", 2)
    requests = [evolve_port(announcement(world), 1000 + number) for number in range(3)]
    asked = [await world.a.peers.ask_in_session("b", each, PATIENCE) for each in requests]
    preambles = [arrival(session, answer.number) for answer, session in asked if isinstance(answer, Announced)]
    with socket.create_connection(world.addresses["b"]) as gone, socket.create_connection(world.addresses["b"]) as last:
        gone.send(preambles[0])
        assert await receive(gone) == b""
        last.send(preambles[2])
        (await world.take())[1].close()


async def test_who_announces_without_end_takes_nobodys_place(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expected, "MOST", 5)
    there, dropped = ExpectedConnections(), list[str]()
    session = (await world.a.peers.channel("b")).session

    async def take(_: socket.socket) -> None:
        await trio.lowlevel.checkpoint()

    for owner in ("modest", *["greedy"] * 10, "modest", "late"):
        there.add(session, take, partial(dropped.append, owner), owner)
    assert dropped == ["greedy"] * 8


def evolve_port(request: Announce, port: int) -> Announce:
    return msgspec.structs.replace(request, source_port=port)


async def test_too_many_that_wait_for_room_are_reset(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their clients may have gone: a server that takes nobody must not keep us busy."""
    monkeypatch.setattr(arrivals, "MOST_WAITING", 2)
    world.b.serve(world.server, port=81, queue=0)
    world.tell()
    dialled = [await world.a.connect(world.client, 81) for _ in range(5)]
    reset = 0
    with trio.fail_after(PATIENCE):
        while not reset:
            await trio.sleep(0.01)
            reset = sum(is_reset(each.client) for each in dialled)
    assert reset < 5


def is_reset(client: socket.socket) -> bool:
    return client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == CLOSED


# --- which ends


async def other_node(world: World) -> tuple[Node, App]:
    """Node c, with a sibling of the client's."""
    other = Node("c", world.directory, world.stack, world.addresses)
    await world.run(other)
    sibling = other.table.new_app(name="client", ip=world.client.ip)
    other.tell(world.b)
    world.b.tell(other)
    return other, sibling


async def test_no_two_connections_have_the_same_two_ends(world: World) -> None:
    other, sibling = await other_node(world)
    await other.connect(sibling, own_port=40000)
    with pytest.raises(OSError, match="in use") as caught:
        await world.a.connect(world.client, own_port=40000)
    assert caught.value.errno == errno.EADDRNOTAVAIL


async def test_another_port_is_taken_where_the_other_side_says_that_one_is_in_use(world: World) -> None:
    other, sibling = await other_node(world)  # both nodes' ports begin with the same one
    first, second = await other.connect(sibling), await world.a.connect(world.client)
    assert first.name is not None
    assert second.name is not None
    assert first.name.ends != second.name.ends


async def test_a_port_that_the_client_has_bound(world: World) -> None:
    dialled = await world.a.connect(world.client, own_port=5000)
    packed, server = await world.take()
    server.close()
    read = socknames.read_client_name(packed)
    assert read is not None
    assert read.source == (world.client.ip, 5000)
    assert dialled.name is not None
    assert dialled.name.ends[0] == (world.client.ip, 5000)


# --- more instances than one


async def test_a_host_that_does_not_answer_is_gone_past(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appswitch.edge.peers.OPEN_WITHIN", 0.05)
    dead = Node("dead", world.directory, world.stack, world.addresses)
    silent = world.stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    world.addresses["dead"] = silent.getsockname()
    dead.serve(dead.table.new_app(name="web", ip=WEB))
    dead.tell(world.a)
    for _ in range(2):
        assert (await world.a.connect(world.client)).listener.app.node == "b"
    assert [each.app.node for each in world.a.balancer.order(list(world.a.table.at_port(WEB, 80)), trio.current_time())
            ] == ["b", "dead"]  # fmt: skip


async def test_no_host_answers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appswitch.edge.peers.OPEN_WITHIN", 0.05)
    monkeypatch.setattr("appswitch.edge.dial.UNREACHABLE_AFTER", 0.2)
    silent = world.stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    world.addresses["b"] = silent.getsockname()
    for nonblocking in (False, True):
        with pytest.raises(OSError, match="no node") as caught:
            await world.a.connect(world.client, nonblocking=nonblocking)
        assert caught.value.errno == errno.EHOSTUNREACH


async def test_a_node_that_is_away_for_a_moment(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connect that blocks has the time."""
    right = world.addresses["b"]
    with socket.create_server(("127.0.0.1", 0)) as closed:
        world.addresses["b"] = closed.getsockname()
    tried = world.a.balancer.node_failed

    def node_failed(node: str, now: float) -> None:
        tried(node, now)
        world.addresses["b"] = right

    monkeypatch.setattr(world.a.balancer, "node_failed", node_failed)
    assert (await world.a.connect(world.client)).listener.app.node == "b"


async def test_an_instance_here_comes_first_and_one_elsewhere_when_it_has_gone(world: World) -> None:
    here = world.a.table.new_app(name="web", ip=WEB)
    _, listening = world.a.serve(here)
    dialled = await world.a.connect(world.client)
    assert (dialled.listener.app, dialled.name) == (here, None)
    listening.close()
    assert (await world.a.connect(world.client)).listener.app.node == "b"


async def test_a_full_queue_is_waited_for(world: World) -> None:
    small = world.b.table.new_app(name="small", ip=WEB)
    _, listening = world.b.serve(small, 81, queue=0)
    world.tell()
    first, second = await world.a.connect(world.client, 81), await world.a.connect(world.client, 81)
    for dialled in (first, second):
        _, server = await take(listening)
        with server:
            dialled.client.send(b"there")
            assert await receive(server) == b"there"


async def test_what_nobody_takes_is_reset(world: World) -> None:
    small = world.b.table.new_app(name="small", ip=WEB)
    _, listening = world.b.serve(small, 81, queue=0)
    world.tell()
    await world.a.connect(world.client, 81)
    waits = await world.a.connect(world.client, 81)
    listening.close()
    with pytest.raises(ConnectionResetError):
        await receive(waits.client)


async def test_what_was_announced_and_never_comes_is_forgotten(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expected, "ARRIVES_WITHIN", 0.0)
    monkeypatch.setattr(expected, "SWEEP_EVERY", 0.01)
    world.nursery.start_soon(world.b.expected.keep_swept)
    await world.a.peers.ask("b", announcement(world), PATIENCE)
    with trio.fail_after(PATIENCE):
        while world.b.expected._expected:  # noqa: ASYNC110 - there is nothing to wait for
            await trio.sleep(0.005)
    await world.a.peers.ask("b", announcement(world), PATIENCE)  # its address is free again


# --- clients from outside


class Gateway:
    """Node a is one: `shown` on node b is exposed there."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.ip = IPv4Address("10.1.1.9")
        self.shown = world.b.table.new_app(name="shown", ip=self.ip, exposes=(Expose(80, 8080),))
        self.listener, self.listening = world.b.serve(self.shown)
        self.relay = Relay()
        world.stack.callback(self.relay.close)
        world.tell()
        self.tell(Exposure(self.ip, 80, 8080))

    def tell(self, exposure: Exposure, *, is_open: bool = True) -> None:
        """Node b hears of what node a has opened."""
        places = ((IPv4Address("127.0.0.1"), 8080),) if is_open else ()
        self.world.b.table.put_remote("a", "g0", GatewayRecord(exposure, places))

    async def come(self) -> tuple[socket.socket, tuple[str, int]]:
        """A client, and where it went to."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            client = self.world.stack.enter_context(socket.create_connection(listening.getsockname()))
            accepted, _ = listening.accept()
        near = self.world.a
        way = Relayed(Remote(near.peers, near.named, near.names), self.relay)
        source, dest = accepted.getpeername(), accepted.getsockname()
        with accepted:
            asked = Asked(None, (IPv4Address(dest[0]), dest[1]), 4, accepted=accepted)
            (listener,) = near.table.at_port(self.ip, 80)
            plan = Reach(IPv4Address(source[0]), source[1], (listener,))
            await way.begin(asked, self.world.stack)(plan, listener)
        return client, dest


async def test_a_client_from_outside_has_its_own_address(world: World) -> None:
    gateway = Gateway(world)
    client, dest = await gateway.come()
    packed, server = await take(gateway.listening)
    read = socknames.read_client_name(packed)
    assert read is not None
    ends = [(str(ip), port) for ip, port in (read.source, read.dest)]
    assert ends == [client.getsockname(), dest]
    with server:
        client.send(b"question")
        assert await receive(server) == b"question"
        server.send(b"answer")
        assert await receive(client) == b"answer"
        assert [row.state for row in await world.a.names.connections()] == [State.ESTABLISHED]
        assert [row.state for row in await world.b.names.connections()] == [State.ESTABLISHED]
        client.shutdown(socket.SHUT_WR)
        assert await receive(server) == b""
    assert await receive(client) == b""
    (event,) = world.b.happened(Kind.CONNECT)
    assert (event.app, event.server) == (None, gateway.shown)


async def test_a_program_that_wants_a_proxy_head(world: World) -> None:
    gateway = Gateway(world)
    for table in (world.a.table, world.b.table):
        (listener,) = table.at_port(gateway.ip, 80)
        table.add_listener(evolve(listener, app=evolve(listener.app, exposes=(Expose(80, 8080, proxy=True),))))
    client, dest = await gateway.come()
    client.send(b"question")
    _, server = await take(gateway.listening)
    source = client.getsockname()
    head = encode_head((IPv4Address(source[0]), source[1]), (IPv4Address(dest[0]), dest[1]))
    with server:
        data = await receive(server)
        if len(data) == len(head):
            data += await receive(server)
        assert data == head + b"question"


@pytest.mark.parametrize("exposure", [Exposure(WEB, 80, 8080), Exposure(IPv4Address("10.1.1.9"), 80, 81), None])
async def test_only_what_the_gateway_has_opened(world: World, exposure: Exposure | None) -> None:
    gateway = Gateway(world)
    gateway.tell(exposure or Exposure(gateway.ip, 80, 8080), is_open=exposure is not None)
    with pytest.raises(UnreachableError, match="what gateway a exposes isn't known there"):
        await gateway.come()
    assert world.b.refreshed == ["a"]


async def test_policy_may_deny_a_client_outside(world: World) -> None:
    gateway = Gateway(world)
    deny = Rule("no-loopback", Action.DENY, client=Selector(cidrs=(IPv4Network("127.0.0.0/8"),)))
    world.b.policing.policy = Policy((deny,))
    with pytest.raises(ConnectionRefusedError):
        await gateway.come()
    (event,) = world.b.happened(Kind.DENY)
    assert (event.rule, event.server) == ("no-loopback", gateway.shown)
