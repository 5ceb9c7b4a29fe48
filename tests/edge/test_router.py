"""Service routers of several nodes, joined by an imitated Serf that loses what it is told to, in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from attrs import define, evolve, field
from trio.testing import MockClock

from appswitch.core.membership import Claim, Member, Status
from appswitch.core.service_table import ServiceTable
from appswitch.core.sync import Copies, Log
from appswitch.edge.apps import Apps
from appswitch.edge.epoch import Epoch
from appswitch.edge.events import Events, Filter
from appswitch.edge.listeners import ListenerSockets
from appswitch.edge.peer_channel import Caller
from appswitch.edge.peers import Peers
from appswitch.edge.router import EVENT_ROOM, EVENTS_A_SECOND, KEPT, Router
from appswitch.edge.serf import MembersChanged, Serf, UserEvent
from appswitch.model import Delta, Kind, Listener, Node, NodeState
from appswitch.wire import records, tags

IP = IPv4Address("10.1.1.1")


@define
class Wire:
    """What joins the nodes. lost: whether an event gets lost; cut: nodes that nobody reaches."""

    clusters: dict[str, FakeSerf] = field(factory=dict)
    routers: dict[str, Router] = field(factory=dict)
    lost: Callable[[bytes], bool] = lambda _: False
    cut: set[str] = field(factory=set)
    events: list[bytes] = field(factory=list)
    pulls: int = 0


class FakeSerf:
    """As edge/serf.py, of one node."""

    def __init__(self, wire: Wire, name: str) -> None:
        self.wire, self.name = wire, name
        self.send, self.messages = trio.open_memory_channel[Any](1000)
        self.member = Member(name, "10.0.0.1", 7946, Status.ALIVE, {}, 1, Claim(unestablished=False, since=1))
        self.forgotten: list[str] = []
        self.has_met = True
        self.refused: str | None = None
        wire.clusters[name] = self

    async def members(self) -> list[Member]:
        await trio.lowlevel.checkpoint()
        there = self.wire.clusters.values()
        return [evolve(each.member, status=Status.FAILED) if each.name in self.wire.cut - {self.name}
                and each.member.status is Status.ALIVE else each.member for each in there]  # fmt: skip

    async def set_tags(self, said: dict[str, str]) -> None:
        await trio.lowlevel.checkpoint()
        self.member = evolve(self.member, tags=said)
        for each in self.wire.clusters.values():
            each.send.send_nowait(MembersChanged())

    async def event(self, payload: bytes) -> None:
        await trio.lowlevel.checkpoint()
        assert len(payload) <= EVENT_ROOM
        self.wire.events.append(payload)
        if not self.wire.lost(payload) and self.name not in self.wire.cut:
            for name in self.wire.clusters.keys() - self.wire.cut:
                self.wire.clusters[name].send.send_nowait(UserEvent(payload))

    async def force_leave(self, node: str) -> None:
        await trio.lowlevel.checkpoint()
        self.forgotten.append(node)


@define
class FakePeers:
    """As edge/peers.py."""

    wire: Wire
    name: str
    handlers: dict[type, Any] = field(factory=dict)

    async def ask(self, node: str, request: Any, _patience: float) -> Any:
        await trio.lowlevel.checkpoint()
        self.wire.pulls += 1
        other = self.wire.routers[node].peers.handlers
        if {node, self.name} & self.wire.cut or type(request) not in other:
            raise TimeoutError(110, "it doesn't answer")
        return await other[type(request)](cast(Caller, FakeCaller(self.name)), request)


@define
class FakeCaller:
    node: str


class World:
    def __init__(self, directory: Path, nursery: trio.Nursery, stack: ExitStack) -> None:
        self.directory, self.nursery, self.stack = directory, nursery, stack
        self.wire = Wire()
        self.lives = 0

    def start(self, name: str, incarnation: int = 1) -> Router:
        """A node; one of that name before is forgotten."""
        self.lives += 1
        table = ServiceTable(name)
        sockets = ListenerSockets(self.directory / f"{name}{self.lives}")
        epoch = Epoch()
        self.stack.callback(sockets.close)
        self.stack.callback(epoch.close)
        apps = Apps(table, sockets, epoch, Events(name))
        serf, peers = cast(Serf, FakeSerf(self.wire, name)), cast(Peers, FakePeers(self.wire, name))
        own = Node(name, address="10.0.0.1", port=7947)
        router = Router(own, apps, Log(name, incarnation), Copies(), serf, peers, clock=lambda: 0.0)
        self.wire.routers[name] = router
        self.nursery.start_soon(router.run)
        return router

    async def settle(self, *routers: Router) -> None:
        for router in routers:
            await router.until_agreed()


@pytest.fixture
def world(tmp_path: Path, nursery: trio.Nursery) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(tmp_path, nursery, stack)
        nursery.cancel_scope.cancel()


def serve(router: Router, port: int, name: str = "web") -> int:
    """An app of that node that listens. Its id."""
    app = router.apps.new_app(name=name, ip=IP)
    number = router.apps.table.next_listener_id()
    router.apps.table.add_listener(Listener(number, app, 4, IP, port, listening=True))
    router.apps.services_changed()
    return app.id


def ports(router: Router) -> list[tuple[str, int]]:
    """What is served, as `router` knows it."""
    return sorted((each.app.node, each.port) for each in router.apps.table.services())


async def until(condition: Callable[[], bool], within: float) -> None:
    """within: virtual seconds."""
    with trio.fail_after(within):
        while not condition():  # noqa: ASYNC110 - time is virtual
            await trio.sleep(0.001)


async def test_what_one_node_serves_all_know(world: World, autojump_clock: MockClock) -> None:
    a, b, c = (world.start(name) for name in "abc")
    await world.settle(a, b, c)
    pulls = world.wire.pulls
    serve(a, 80)
    await until(lambda: ports(b) == ports(c) == [("a", 80)], within=1)
    assert world.wire.pulls == pulls  # the event told all
    assert b.apps.table.resolve("web") == IP
    await world.settle(a, b, c)
    assert {each.node.name: each.seq for each in b.standings()} == {"a": 2, "b": 0, "c": 0}


async def test_whoever_comes_later_gets_everything(world: World, autojump_clock: MockClock) -> None:
    a = world.start("a")
    app = serve(a, 80)
    b = world.start("b")
    await world.settle(b)
    assert ports(b) == [("a", 80)]
    a.apps.table.remove_app(app)
    a.apps.services_changed()
    await world.settle(b)
    assert ports(b) == []


async def test_what_shims_have_learnt_ends_when_it_may_be_wrong(world: World, autojump_clock: MockClock) -> None:
    a, b = world.start("a"), world.start("b")
    await world.settle(a, b)
    epoch = b.apps.epoch.now
    serve(a, 80)
    await world.settle(a, b)
    assert (ports(b), b.apps.epoch.now) == ([("a", 80)], epoch)  # nobody here is connected to it by itself
    serve(b, 80)
    await world.settle(a, b)
    epoch = b.apps.epoch.now
    serve(a, 81)  # an app with the IP that one of b's has
    await world.settle(a, b)
    assert b.apps.epoch.now > epoch


async def test_lost_events(world: World, autojump_clock: MockClock) -> None:
    a, b = world.start("a"), world.start("b")
    await world.settle(a, b)
    world.wire.lost = lambda _: True
    serve(a, 80)
    await until(lambda: ports(b) == [("a", 80)], within=3)  # the tags tell, once a second
    world.wire.lost = lambda _: False
    serve(a, 81, "other")
    await world.settle(a, b)
    assert ports(b) == [("a", 80), ("a", 81)]


async def test_many_changes_are_few_events(world: World, autojump_clock: MockClock) -> None:
    a, b = world.start("a"), world.start("b")
    await world.settle(a, b)
    start, before = trio.current_time(), len(world.wire.events)
    for port in range(1000):
        serve(a, 1000 + port, f"app-{port}")
        await trio.sleep(0.001)
    await world.settle(b)
    assert len(ports(b)) == 1000
    spent = trio.current_time() - start
    assert len(world.wire.events) - before <= EVENTS_A_SECOND * (spent + 1) + 8


async def test_a_failed_node_is_suspect_and_comes_back(world: World, autojump_clock: MockClock) -> None:
    a, b = world.start("a"), world.start("b")
    serve(a, 80)
    await world.settle(b)
    world.wire.cut.add("a")
    await trio.sleep(2)
    assert b.called("a").state is NodeState.SUSPECT
    assert b.apps.table.unreachable == {"a"}
    assert ports(b) == [("a", 80)]
    serve(a, 81)
    world.wire.cut.clear()
    await world.settle(a, b)
    assert b.apps.table.unreachable == set()
    assert ports(b) == [("a", 80), ("a", 81)]
    said = [each.reason for each in b.apps.events.recent(Filter()) if each.kind is Kind.NODE]
    assert said == ["a is alive", "a is suspect", "a is alive"]


async def test_which_gateways_there_are(world: World, autojump_clock: MockClock) -> None:
    a, b, c = (world.start(name) for name in "abc")
    for each in (a, c):
        each.own = evolve(each.own, gateway=True)
    await world.settle(a, b, c)
    await trio.sleep(3)
    assert (sorted(b.gateways()), a.gateways()) == (["a", "c"], ["c"])
    world.wire.cut.add("a")
    await trio.sleep(2)
    assert b.gateways() == ["c"]
    world.wire.cut.add("c")
    await trio.sleep(2)
    assert sorted(b.gateways()) == ["a", "c"], "it may be Serf's port only that is blocked"
    await trio.sleep(KEPT + 5)
    assert b.gateways() == []


async def test_the_ports_that_nodes_talk_by(world: World, autojump_clock: MockClock) -> None:
    a, b = world.start("a"), world.start("b")
    b.own = evolve(b.own, address="10.0.0.9", port=8001)
    await world.settle(a, b)
    own = {(ip_address("10.0.0.9"), 8000), (ip_address("10.0.0.9"), 8001)}
    assert own < b.own_ports()
    assert len(b.own_ports()) == 4


async def test_one_that_does_not_come_back_is_forgotten(world: World, autojump_clock: MockClock) -> None:
    a, b = world.start("a"), world.start("b")
    serve(a, 80)
    await world.settle(b)
    world.wire.cut.add("a")
    await trio.sleep(KEPT + 5)
    assert ports(b) == []
    assert cast(FakeSerf, b.serf).forgotten == ["a"]
    assert b.apps.table.unreachable == set()
    assert [each.node.name for each in b.standings()] == ["b"]
    world.wire.cut.clear()
    await world.settle(a, b)
    assert ports(b) == [("a", 80)]
    assert [each.node.name for each in b.standings()] == ["b", "a"]


async def test_one_that_leaves(world: World, autojump_clock: MockClock) -> None:
    a, b = world.start("a"), world.start("b")
    serve(a, 80)
    await world.settle(b)
    left = world.wire.clusters["a"]
    left.member = evolve(left.member, status=Status.LEFT)
    await trio.sleep(2)
    assert ports(b) == []
    assert b.called("a").state is NodeState.LEFT
    del world.wire.clusters["a"]
    await trio.sleep(2)
    assert [each.node.name for each in b.standings()] == ["b"]


@pytest.mark.parametrize("incarnation", [0, 1, 2])
async def test_one_that_starts_anew(world: World, autojump_clock: MockClock, incarnation: int) -> None:
    """Also where its clock has gone back, and it has no memory: then it learns of its former life from the others."""
    a, b = world.start("a"), world.start("b")
    serve(a, 80)
    await world.settle(b)
    again = world.start("a", incarnation)
    serve(again, 81)
    await world.settle(b, again)
    assert ports(b) == [("a", 81)]


async def test_hostile_words(world: World, autojump_clock: MockClock) -> None:
    """Whoever has the key may say anything; what can't be read changes nothing."""
    a, b = world.start("a"), world.start("b")
    serve(a, 80)
    await world.settle(b)
    for payload in (b"", b"\xc1", b"x" * 480, b"\x97\xa1b\x01\x00\x01\x00\x91\x92\xa13\xc4\x01\xff\xc2"):
        world.wire.clusters["b"].send.send_nowait(UserEvent(payload))
    bad = FakeSerf(world.wire, "c")
    bad.member = evolve(bad.member, tags={**tags.encode(a.own, a.log.summary), "p": "nonsense"})
    await trio.sleep(3)
    assert ports(b) == [("a", 80)]
    assert [each.node.name for each in b.standings()] == ["b", "a"]


UNREADABLE = {
    "key": records.encode_delta(Delta("a", 1, 2, 3, None, (("x", b""),))),
    "text": b"\x97\xa1\xff\x01\x00\x00\x00\x90\xc2",
    "nested": b"\x98\xa1a\x01\x00\x00\x00\x90\xc2" + b"\x91" * 5000 + b"\xc0",
    "record": records.encode_delta(
        Delta("a", 1, 2, 3, None, (("7", b"\x98\xc0\xc4\x04abcd\x90\x00\x00\x00\x90" + b"\x91" * 5000 + b"\xc0"),))
    ),
}


@pytest.mark.parametrize("payload", UNREADABLE.values(), ids=UNREADABLE)
async def test_words_that_would_end_a_task(world: World, autojump_clock: MockClock, payload: bytes) -> None:
    a, b = world.start("a"), world.start("b")
    serve(a, 80)
    await world.settle(b)
    world.wire.clusters["b"].send.send_nowait(UserEvent(payload))
    serve(a, 81)
    await until(lambda: ports(b) == [("a", 80), ("a", 81)], within=5)


async def test_a_life_after_which_none_can_be_said(world: World, autojump_clock: MockClock) -> None:
    """By one event, of whoever has the key."""
    a, b = world.start("a"), world.start("b")
    serve(a, 80)
    await world.settle(b)
    said = records.encode_delta(Delta("a", (1 << 64) - 1, 0, 0, 0, (), whole=True))
    world.wire.clusters["b"].send.send_nowait(UserEvent(said))
    await trio.sleep(5)
    serve(a, 81)
    serve(b, 82)
    await until(lambda: ("b", 82) in ports(a), within=5)


async def test_a_million_bad_entries_are_a_line_or_two(
    world: World, autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = world.start("a"), world.start("b")
    await world.settle(a, b)
    entries = tuple((str(number), b"\xc1") for number in range(2000))
    digest = Copies()
    digest.admit("a")
    digest.apply(Delta("a", 2, 0, 2000, None, entries, whole=True))
    known = digest.summary_of("a")
    assert known is not None
    said = Delta("a", 2, 0, 2000, known.digest, entries, whole=True)
    world.wire.clusters["b"].send.send_nowait(UserEvent(records.encode_delta(said)))
    await trio.sleep(0.5)
    assert 1 <= capsys.readouterr().out.count("an entry that can't be read") <= 2


async def test_one_that_does_not_answer_is_no_agreement(world: World, autojump_clock: MockClock) -> None:
    a, b = world.start("a"), world.start("b")
    await world.settle(a, b)
    cast(FakePeers, a.peers).handlers.clear()
    with trio.move_on_after(10) as waited:
        await b.until_agreed()
    assert waited.cancelled_caught
