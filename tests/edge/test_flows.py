"""Flows between two nodes in this process: each with an app in a namespace of its own, which host/home.py keeps."""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from ipaddress import IPv4Address, ip_address
from pathlib import Path

import pytest
import trio
from attrs import define, evolve

from appswitch.core.exits import Exit
from appswitch.core.policy import Policy
from appswitch.core.service_table import ServiceTable
from appswitch.edge import flows as flows_module
from appswitch.edge import namespaces
from appswitch.edge.apps import Apps
from appswitch.edge.epoch import Epoch
from appswitch.edge.events import Events
from appswitch.edge.flows import Flows, Pair, Peer
from appswitch.edge.listeners import ListenerSockets
from appswitch.edge.namespaces import Namespace
from appswitch.edge.placing import sockaddr
from appswitch.edge.policing import Policing
from appswitch.model import App, Outside, Party
from appswitch.wire import flow as wire
from tests.harness import PATIENCE, open_descriptors

pytestmark = pytest.mark.root

SECRET = b"the cluster's"
IPS = {"a": ip_address("10.1.1.1"), "b": ip_address("10.1.1.2")}
CLIENT: Pair = (IPS["a"], 40000)
SERVER: Pair = (IPS["b"], 7000)


@define(eq=False)
class Side:
    """A node, and the app on it."""

    name: str
    apps: Apps
    app: App
    home: Namespace
    flows: Flows
    shared: socket.socket
    asked: int = 0

    async def socket(self, bound: Pair, to: Pair | None = None) -> socket.socket:
        """One of the app's."""
        family = bound[0].version
        made = await self.home.make_socket(socket.AF_INET6 if family == 6 else socket.AF_INET, socket.SOCK_DGRAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setblocking(False)
        made.bind(sockaddr(family, bound))
        if to is not None:
            made.connect(sockaddr(family, to))
        return made


@define
class World:
    a: Side
    b: Side
    nursery: trio.Nursery

    def app_on(self, side: Side, far: App) -> App:
        """What `side` knows of an app of the other node."""
        return next(each for each in side.apps.table.apps.values() if each.node == far.node)

    async def open(self, near: Pair = CLIENT, far: Pair = SERVER) -> None:
        """As when an app on a sends to one on b."""
        await self.a.flows.open(self.a.app, near, self.app_on(self.a, self.b.app), far, is_answer=False)


async def heard(receiver: socket.socket) -> tuple[bytes, Pair]:
    with trio.fail_after(PATIENCE):
        await trio.lowlevel.wait_readable(receiver)
    data, source = receiver.recvfrom(70000)
    return data, (ip_address(source[0]), source[1])


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 - nothing announces it
            await trio.sleep(0.01)


async def home_of(ip: str, alias: str) -> tuple[trio.Process, Namespace]:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, its:
        command = [sys.executable, "-m", "appswitch.host.home", str(its.fileno()), ip, alias]
        process = await trio.lowlevel.open_process(command, stdin=None, pass_fds=[its.fileno()])
        await trio.lowlevel.wait_readable(ours)
        said, fds, _, _ = socket.recv_fds(ours, 1024, namespaces.MOST_SOCKETS)
    assert said == b"ready", said
    made = namespaces.adopt(fds)
    for fd in fds:
        os.close(fd)
    await made.receivers()
    return process, made


@pytest.fixture
async def world(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[World]:
    shared = {name: socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for name in IPS}
    for each in shared.values():
        each.setblocking(False)
        each.bind(("127.0.0.1", 0))
    sides: dict[str, Side] = {}
    processes = []
    stack = ExitStack()

    def announcer(name: str, other: str) -> Callable[[App, Pair, Peer, Pair, int], Awaitable[None]]:
        async def announce(client: App, near: Pair, server: Peer, far: Pair, number: int) -> None:
            there = sides[other]
            there.asked += 1
            await trio.lowlevel.checkpoint()
            if isinstance(server, Exit):
                known = next(each for each in there.apps.table.apps.values() if each.node == name)
                await there.flows.let_out(known, near, Outside(far[0]), far[1], number)
                return
            if not there.home.receives_from(near, far):
                raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody receives there")
            peer = next(each for each in there.apps.table.apps.values() if each.node == name)
            await there.flows.accept(there.app, far, peer, near, number, is_answer=False)

        return announce

    for name, other in ("ab", "ba"):
        table = ServiceTable(name)
        sockets = ListenerSockets(tmp_path / name)
        stack.callback(sockets.close)
        apps = Apps(table, sockets, Epoch(), Events(name))
        app = apps.new_app(name=name, ip=IPS[name])
        table.revive(evolve(app, id=99, node=other, name=other, ip=IPS[other]))
        process, home = await home_of(str(app.ip), str(app.alias))
        processes.append(process)
        apps.namespaces[app.id] = home
        flows = Flows(apps, Policing(), SECRET, announcer(name, other), lambda node: shared[node].getsockname())
        await nursery.start(flows.run, shared[name])
        sides[name] = Side(name, apps, app, home, flows, shared[name])
    yield World(sides["a"], sides["b"], nursery)
    nursery.cancel_scope.cancel()
    with trio.CancelScope(shield=True):
        for side in sides.values():
            for flow in list(side.flows.all()):
                side.flows.end(flow)
            side.home.close()
            side.apps.epoch.close()
            side.shared.close()
        stack.close()
        for process in processes:
            await process.wait()


@pytest.mark.parametrize("connected", [False, True])
async def test_both_ends_see_who_they_are(world: World, connected: bool) -> None:
    server = await world.b.socket((IPv4Address(0), SERVER[1]))
    client = await world.a.socket(CLIENT, SERVER if connected else None)
    with server, client:
        await world.open()
        for data in (b"one", b"", b"three"):
            client.send(data) if connected else client.sendto(data, sockaddr(4, SERVER))
            assert await heard(server) == (data, CLIENT)
            server.sendto(data + b"!", sockaddr(4, CLIENT))
            assert await heard(client) == (data + b"!", SERVER)


async def test_by_v6_and_by_loopback(world: World) -> None:
    for near, far in (
        ((world.a.app.alias, 40001), (world.b.app.alias, 7001)),
        ((ip_address("127.0.0.1"), 40002), (ip_address("127.0.0.1"), 7002)),
        ((ip_address("::1"), 40003), (ip_address("::1"), 7003)),
    ):
        server, client = await world.b.socket(far), await world.a.socket(near, far)
        with server, client:
            await world.open(near, far)
            client.send(b"question")
            assert await heard(server) == (b"question", near)
            server.sendto(b"answer", sockaddr(near[0].version, near))
            assert await heard(client) == (b"answer", far)


async def test_the_largest_that_fits_and_none_that_does_not(world: World) -> None:
    server, client = await world.b.socket(SERVER), await world.a.socket(CLIENT, SERVER)
    with server, client:
        await world.open()
        for size in (wire.MOST_DATA, wire.MOST_DATA + 1, 65507, 1):
            client.send(bytes(size))
        assert len((await heard(server))[0]) == wire.MOST_DATA
        assert len((await heard(server))[0]) == 1


async def test_many_at_once_keep_their_order(world: World) -> None:
    server, client = await world.b.socket(SERVER), await world.a.socket(CLIENT, SERVER)
    with server, client:
        await world.open()
        for start in range(0, 2000, 50):
            for number in range(start, start + 50):
                client.send(b"%d" % number)
            for number in range(start, start + 50):
                assert (await heard(server))[0] == b"%d" % number


async def test_a_relay_is_no_receiver_of_the_apps(world: World) -> None:
    server, client = await world.b.socket(SERVER), await world.a.socket(CLIENT)
    with server, client:
        await world.open()
        assert not world.a.home.receives_from(CLIENT, SERVER), "of what the client sends: the relay"
        assert not world.b.home.receives_from(SERVER, CLIENT)
        assert world.a.home.receives_from(SERVER, CLIENT)
        with await world.a.socket((IPv4Address(0), SERVER[1])):
            assert world.a.home.receives_from(CLIENT, SERVER), "an app's own behind the relay"


async def test_where_nobody_receives(world: World) -> None:
    with await world.a.socket(CLIENT, SERVER) as client:
        for _ in range(3):
            with pytest.raises(ConnectionRefusedError):
                await world.open()
        assert world.b.asked == 1, "nobody is asked again at once"
        client.send(b"anybody?")
        with pytest.raises(ConnectionRefusedError):
            client.recv(1)
        assert not world.a.flows.all()


async def test_a_server_that_closes_is_refused_by_the_clients_kernel(world: World) -> None:
    server, client = await world.b.socket(SERVER), await world.a.socket(CLIENT, SERVER)
    with client:
        with server:
            await world.open()
        client.send(b"still there?")  # which the kernel there can't deliver: so the client's kernel is told
        with pytest.raises(ConnectionRefusedError):
            await heard(client)
        await until(lambda: not world.a.flows.all() and not world.b.flows.all())
        client.send(b"again")
        with pytest.raises(ConnectionRefusedError):
            client.recv(1)


@pytest.mark.parametrize("end", ["a", "b"])
async def test_a_flow_ends_with_either_socket(world: World, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows_module, "LOOK_EVERY", 0.01)
    server, client = await world.b.socket(SERVER), await world.a.socket(CLIENT, SERVER)
    with server, client:
        descriptors = open_descriptors()
        await world.open()
        assert open_descriptors() == descriptors + 2
        client.send(b"x")
        await heard(server)
        (client if end == "a" else server).close()
        await until(lambda: not world.a.flows.all() and not world.b.flows.all())
        assert open_descriptors() == descriptors - 1


async def test_an_idle_flow_ends_and_who_sends_asks_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows_module, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(flows_module, "IDLE", 0.1)
    server, client = await world.b.socket(SERVER), await world.a.socket(CLIENT, SERVER)
    with server, client:
        epoch = world.a.apps.epoch.now, world.b.apps.epoch.now
        await world.open()
        await until(lambda: not world.a.flows.all() and not world.b.flows.all())
        assert (world.a.apps.epoch.now, world.b.apps.epoch.now) != epoch
        await world.open()
        client.send(b"back")
        assert await heard(server) == (b"back", CLIENT)


@pytest.mark.parametrize("gone", ["peer", "app"])
async def test_a_flow_ends_with_its_apps(world: World, gone: str) -> None:
    server, client = await world.b.socket(SERVER), await world.a.socket(CLIENT, SERVER)
    with server, client:
        await world.open()
        table = world.a.apps.table
        table.remove_app(world.app_on(world.a, world.b.app).id if gone == "peer" else world.a.app.id)
        world.a.apps.services_changed()
        await until(lambda: not world.a.flows.all() and not world.b.flows.all())
        client.send(b"anybody?")
        with pytest.raises(ConnectionRefusedError):
            client.recv(1)


@pytest.mark.parametrize("where", ["a", "b"])
async def test_a_policy_that_denies_it_ends_it(world: World, where: str) -> None:
    server, client = await world.b.socket(SERVER), await world.a.socket(CLIENT, SERVER)
    with server, client:
        await world.open()
        side = world.a if where == "a" else world.b
        side.apps.services_changed()
        client.send(b"allowed")
        assert await heard(server) == (b"allowed", CLIENT)

        class Nobody(Policy):
            def decide(self, client: Party, server: Party, port: int, proto: str = "tcp"):  # type: ignore[no-untyped-def]
                verdict = super().decide(client, server, port, proto)
                return evolve(verdict, allowed=False)

        side.flows.policing.policy = Nobody()
        side.apps.services_changed()
        await until(lambda: not world.a.flows.all() and not world.b.flows.all())


async def test_a_trap_handler_that_has_started_anew(world: World) -> None:
    server, client = await world.b.socket(SERVER), await world.a.socket(CLIENT, SERVER)
    with server, client:
        await world.open()
        client.send(b"first")
        await heard(server)
        for flow in list(world.b.flows.all()):
            world.b.flows.end(flow)
        with trio.fail_after(PATIENCE):
            while world.b.asked < 2 or not world.b.flows.all():
                client.send(b"lost, or not")
                await trio.sleep(0.01)
        client.send(b"again")
        while (await heard(server))[0] != b"again":
            pass
        server.sendto(b"fine", sockaddr(4, CLIENT))
        assert await heard(client) == (b"fine", SERVER)


async def test_both_announce_at_once(world: World) -> None:
    """As NTP's peers."""
    one, other = await world.a.socket(CLIENT), await world.b.socket(SERVER)
    with one, other:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.open)
            peer = world.app_on(world.b, world.a.app)

            async def back() -> None:
                await world.b.flows.open(world.b.app, SERVER, peer, CLIENT, is_answer=False)

            nursery.start_soon(back)
        assert len(world.a.flows.all()) == len(world.b.flows.all()) == 1
        for _ in range(3):
            one.sendto(b"one", sockaddr(4, SERVER))
            other.sendto(b"other", sockaddr(4, CLIENT))
            assert await heard(other) == (b"one", CLIENT)
            assert await heard(one) == (b"other", SERVER)


async def test_a_name_that_another_app_has_there(world: World) -> None:
    server, client = await world.b.socket(SERVER), await world.a.socket(CLIENT, SERVER)
    with server, client:
        await world.open()
        table = world.b.apps.table
        sibling = table.revive(evolve(world.app_on(world.b, world.a.app), id=100, node="c"))
        with pytest.raises(OSError, match="another app") as raised:
            await world.b.flows.accept(world.b.app, SERVER, sibling, CLIENT, 1, is_answer=False)
        assert raised.value.errno == errno.EADDRINUSE
        client.send(b"mine")
        assert await heard(server) == (b"mine", CLIENT)


async def test_two_flows_of_one_number(world: World) -> None:
    """Announced at once, by a peer that is broken: one is taken, and the end of it ends nothing else."""
    numbers: list[int] = []
    peer = world.app_on(world.b, world.a.app)

    async def accept(near: Pair) -> None:
        try:
            await world.b.flows.accept(world.b.app, SERVER, peer, near, 7, is_answer=False)
            numbers.append(7)
        except OSError as error:
            numbers.append(error.errno or 0)

    async with trio.open_nursery() as nursery:
        for near in (CLIENT, CLIENT, (CLIENT[0], CLIENT[1] + 1)):
            nursery.start_soon(accept, near)
    assert sorted(numbers) == [7, errno.EINVAL, errno.EINVAL]
    (flow,) = world.b.flows.all()
    world.b.flows.end(flow)


async def test_errors_that_others_send_a_relay(world: World) -> None:
    """Who has CAP_NET_RAW in there can have any error of ICMP's reported: to us it is as good as a lost datagram."""
    server, client = await world.b.socket(SERVER), await world.a.socket(CLIENT, SERVER)
    with server, client:
        await world.open()
        server.sendto(b"x", sockaddr(4, CLIENT))  # so that the relay has sent something
        assert await heard(client) == (b"x", SERVER)
        with await world.a.home.make_socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
            raw.sendto(protocol_unreachable(SERVER, CLIENT), (str(CLIENT[0]), 0))
        client.send(b"y")
        assert await heard(server) == (b"y", CLIENT)


def protocol_unreachable(source: Pair, dest: Pair) -> bytes:
    """RFC 792: what is said of a datagram from source to dest."""
    udp = struct.pack("!HHHH", source[1], dest[1], 9, 0)
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 29, 0, 0, 64, 17, 0, source[0].packed, dest[0].packed)
    message = bytearray(struct.pack("!BBHI", 3, 2, 0, 0) + ip + udp)
    total = sum(struct.unpack(f"!{len(message) // 2}H", message))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    message[2:4] = struct.pack("!H", ~total & 0xFFFF)
    return bytes(message)


async def test_strangers_and_replays_get_nothing(world: World) -> None:
    server, client = await world.b.socket(SERVER), await world.a.socket(CLIENT, SERVER)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger, server, client:
        stranger.bind(("127.0.0.1", 0))
        stranger.setblocking(False)
        await world.open()
        (flow,) = world.a.flows.all()
        number = flow.numbers[0]
        room = memoryview(bytearray(100))
        for secret in (b"", b"guessed"):
            for kind in wire.Kind:
                for which in (number, number ^ 1):
                    packet = wire.Session(secret, which, 0).seal(room, 5, kind)
                    stranger.sendto(packet, world.b.shared.getsockname())
        for rubbish in (b"", b"x", bytes(33), os.urandom(1000)):
            stranger.sendto(rubbish, world.b.shared.getsockname())
        again = bytes(wire.Session(SECRET, number, 0).seal(room, 5))  # with counter 1
        client.send(b"mine")
        assert await heard(server) == (b"mine", CLIENT)
        stranger.sendto(again, world.b.shared.getsockname())
        client.send(b"mine, too")
        assert await heard(server) == (b"mine, too", CLIENT)
        with pytest.raises(BlockingIOError):
            stranger.recv(99)
        server.sendto(b"answer", sockaddr(4, CLIENT))
        assert await heard(client) == (b"answer", SERVER), "it goes where the peer is, not to who has replayed"


async def taken(*_: object) -> None:
    """Whatever is announced."""
    await trio.lowlevel.checkpoint()


async def test_an_app_with_very_many_loses_its_own(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it uses still is opened anew when it sends; the other app's go on."""
    monkeypatch.setattr(flows_module, "MOST", 4)
    monkeypatch.setattr(flows_module, "EVICTED", 1)
    server = await world.b.socket((IPv4Address(0), SERVER[1]))
    with server, await world.a.socket(CLIENT, SERVER) as modest, ExitStack() as stack:
        await world.open()
        greedy = world.a.apps.new_app(name="greedy", ip=ip_address("10.7.7.7"))
        process, home = await home_of(str(greedy.ip), str(greedy.alias))
        world.a.apps.namespaces[greedy.id] = home
        stack.callback(home.close)
        monkeypatch.setattr(world.a.flows, "announce", taken)
        peer, epoch = world.app_on(world.a, world.b.app), world.a.apps.epoch.now
        for port in range(5000, 5008):
            await world.a.flows.open(greedy, (greedy.ip, port), peer, SERVER)
        mine = [each.near for each in world.a.flows.all() if each.app.id == greedy.id]
        assert mine == [(greedy.ip, port) for port in (5005, 5006, 5007)]
        assert world.a.apps.epoch.now > epoch, "who sends by those that have ended asks again"
        modest.send(b"still here")
        assert await heard(server) == (b"still here", CLIENT)
    with trio.CancelScope(shield=True):
        await process.wait()
