"""The service router: keeps the service tables of all hosts the same (the paper's term).

Each node writes its own entries only, as a log (core/sync.py). What changes is told in three ways: deltas as Serf's
user events, which are quick, small, and may be lost; the node's Serf tags, which say how far its log is; and pulls from
the owner over the peer channel, whenever an event or a tag shows that something is missing. A delta without
changes says only that there is something to pull: it is sent when a delta wouldn't fit, or too many follow each other.

Serf says which nodes are there. The entries of one that has failed are kept for its return, but not chosen while others
live; after a time, or once it has left, they go.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from ipaddress import ip_address

import structlog
import trio
from attrs import define, evolve, field

from appswitch.core.membership import Member
from appswitch.core.membership import Status as SerfStatus
from appswitch.core.sync import Applied, Copies, Excess, Gap, Log
from appswitch.edge.apps import Apps
from appswitch.edge.nodes import Standing
from appswitch.edge.peer_channel import Caller
from appswitch.edge.peers import Peers
from appswitch.edge.serf import Serf, UserEvent
from appswitch.errors import AppSwitchError
from appswitch.model import Address, Delta, Kind, Node, NodeState, Protocol
from appswitch.wire import records, tags
from appswitch.wire.peer import Pull, Pulled, Status

EVENT_ROOM = 480  # bytes of an event that surely pass
EVENTS_A_SECOND = 20  # more than twice as many would be lost for good
TAGS_EVERY = 1.0  # seconds
POLL_EVERY = 1.0  # seconds: what Serf's stream has dropped is found by then
PATIENCE = 5.0  # seconds that a pull may take
PAUSE = 0.1  # seconds between two looks whether all agree
COMPLAIN_EVERY = 10.0  # seconds between two lines about what nodes say
KEPT = 300.0  # seconds that a failed node's entries are kept

STATES = {SerfStatus.ALIVE: NodeState.ALIVE, SerfStatus.FAILED: NodeState.SUSPECT}

log = structlog.get_logger()


@define
class Known:
    """What we know of another node. failed: since when; forgotten: for too long; agreed: when we last had all of it."""

    node: Node
    failed: float | None = None
    forgotten: bool = False
    agreed: float | None = None
    pulling: trio.Event | None = None
    """Of a pull that is under way: set at its end."""


@define
class Router:
    """Of one node. own: itself, as others see it; clock: seconds since 1970."""

    own: Node
    apps: Apps
    log: Log
    copies: Copies
    serf: Serf
    peers: Peers
    clock: Callable[[], float] = time.time
    known: dict[str, Known] = field(factory=dict)
    _nursery: trio.Nursery = field(init=False)
    _quiet_until: float = 0.0
    obstacle: str = ""
    """What `until_agreed` waits for."""

    async def run(self) -> None:
        """Routes for ever."""
        self.peers.handlers[Pull] = self._answer_pull
        self.peers.handlers[Status] = self._answer_status
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._announce)
            self._nursery.start_soon(self._keep_tags)
            self._nursery.start_soon(self._listen)
            self._nursery.start_soon(self._poll)

    # --- what we tell

    async def _announce(self) -> None:
        """Tells of changes at once; where they are many, only that there are some."""
        told, allowance, since = self.log.summary, float(EVENTS_A_SECOND), trio.current_time()
        while True:
            self._write_log()
            if self.log.summary == told:
                await self.apps.changed()
                continue
            now = trio.current_time()
            allowance, since = min(EVENTS_A_SECOND, allowance + (now - since) * EVENTS_A_SECOND), now
            if allowance < 1:
                await trio.sleep(1 / EVENTS_A_SECOND)
                continue  # what has changed meanwhile goes along
            delta = self.log.since(told)
            events = records.pieces(delta, EVENT_ROOM)
            if events is None or len(events) > allowance:
                events = [records.encode_delta(evolve(delta, after=delta.seq, changes=(), whole=False))]  # "pull"
            allowance -= len(events)
            told = self.log.summary
            for each in events:
                await self.serf.event(each)

    def _write_log(self) -> None:
        table = self.apps.table
        for key in sorted(table.dirty):
            record = table.record(key)
            if record is None:
                self.log.remove(key)
            else:
                self.log.put(key, records.encode(record))
        table.dirty.clear()

    async def _keep_tags(self) -> None:
        told: dict[str, str] = {}
        while True:
            current = tags.encode(self.own, self.log.summary)
            if current != told:
                await self.serf.set_tags(current)
                told = current
            await trio.sleep(TAGS_EVERY)

    async def _answer_pull(self, _caller: Caller, request: Pull) -> Pulled:
        self._write_log()
        return Pulled(records.encode_delta(self.log.since(request.known)))

    async def _answer_status(self, caller: Caller, request: Status) -> Status:
        self._write_log()
        if request.yours is not None:
            self.log.outlive(request.yours)
        return Status(self.log.summary, self.copies.summary_of(caller.node))

    # --- what we hear

    async def _listen(self) -> None:
        async for message in self.serf.messages:
            if isinstance(message, UserEvent):
                self._hear(message.payload)
            else:
                await self._look()

    async def _poll(self) -> None:
        while True:
            await self._look()
            await trio.sleep(POLL_EVERY)

    def _hear(self, payload: bytes) -> None:
        try:
            delta = records.decode_delta(payload)
        except AppSwitchError as error:
            self._complain("an event that can't be read", reason=error.message)
            return
        if delta.owner != self.own.name and not self._apply(delta) and delta.owner in self.known:
            self._start_pull(delta.owner)

    def _apply(self, delta: Delta) -> bool:
        """False: something is missing."""
        applied = self.copies.apply(delta)
        if isinstance(applied, Applied) and applied.changed:
            learnt = self._is_learnt(delta.owner, applied.changed)
            for key, value in applied.changed.items():
                self._put(delta.owner, key, value)
            self.apps.settle_names()
            self.apps.note_change()
            if learnt or self._is_learnt(delta.owner, applied.changed):
                self.apps.epoch.advance()
        if isinstance(applied, Excess):
            self._complain("a table that is too large", node=delta.owner)
        return not isinstance(applied, Gap)

    def _is_learnt(self, node: str, keys: Iterable[str]) -> bool:
        """Whether shims may know something that these entries change: the instances of a service that this host has,
        too, or where datagrams go. In a busy cluster most entries are no news to most hosts.
        """
        table = self.apps.table
        numbers = {number for number in (key.partition("/")[0] for key in keys) if re.fullmatch(r"[0-9]{1,9}", number)}
        apps = [app for app in (table.app_of(node, int(number)) for number in numbers) if app is not None]
        shared = {app.ip for app in apps}
        return any(table.is_local(each) for ip in shared for each in table.apps_at(ip)) or any(
            each.protocol is Protocol.UDP for app in apps for each in table.listeners_of(app)
        )

    def _put(self, node: str, key: str, value: bytes | None) -> None:
        try:
            record = None if value is None else records.decode(node, key, value)
            self.apps.table.put_remote(node, key, record)
        except (AppSwitchError, ValueError) as error:
            self._complain("an entry that can't be read", node=node, key=key[:32], reason=str(error)[:200])

    def _complain(self, what: str, **facts: str) -> None:
        """A node may say a million such things."""
        now = trio.current_time()
        if now >= self._quiet_until:
            self._quiet_until = now + COMPLAIN_EVERY
            log.warning(what, **facts)

    async def _look(self) -> bool:
        """At who is there, and how far they are. False: somebody has just started, and hasn't said it yet."""
        members = {each.name: each for each in await self.serf.members() if each.name != self.own.name}
        for member in members.values():
            self._see(member)
        for name in [each for each in self.known if each not in members]:
            self._lose(name)
            del self.known[name]
        return all(each.name in self.known for each in members.values() if each.is_alive)

    def _see(self, member: Member) -> None:
        now, table = trio.current_time(), self.apps.table
        try:
            told = tags.decode(member.tags)
        except ValueError as error:
            if member.tags.keys() & {"v"}:  # else it has just started
                log.debug("a node's tags can't be read", node=member.name, reason=str(error))
            return
        node = Node(member.name, STATES.get(member.status, NodeState.LEFT), told.gateway, member.address, told.port)
        known = self.known.setdefault(member.name, Known(node))
        was, known.node = known.node, node
        if was is node or was.state is not node.state:
            self.apps.events.publish(Kind.NODE, reason=f"{node.name} is {node.state.value}")
            self.apps.note_change()
        match node.state:
            case NodeState.ALIVE:
                self.copies.admit(node.name)
                if known.failed is not None:
                    known.failed, known.forgotten = None, False
                    table.unreachable.discard(node.name)
                    self.apps.services_changed()
                if self.copies.heard(node.name, told.summary):
                    self._start_pull(node.name)
                else:
                    known.agreed = self.clock()
            case NodeState.SUSPECT:
                if known.failed is None:
                    known.failed = now
                    table.unreachable.add(node.name)
                    self.apps.services_changed()
                elif now >= known.failed + KEPT and not known.forgotten:
                    known.forgotten = True
                    self._lose(node.name)
                    self._nursery.start_soon(self.serf.force_leave, node.name)
            case NodeState.LEFT if not known.forgotten:
                known.failed, known.forgotten = now, True
                self._lose(node.name)

    def _lose(self, name: str) -> None:
        """What it had is gone for good."""
        self.copies.forget(name)
        self.apps.table.forget_node(name)
        self.apps.services_changed()

    def _start_pull(self, name: str) -> None:
        if self.known[name].pulling is None:
            self._nursery.start_soon(self._pull_logged, name)

    async def _pull_logged(self, name: str) -> None:
        try:
            await self.refresh(name)
        except OSError as error:
            log.debug("a table can't be had", node=name, error=error.strerror)

    async def refresh(self, name: str) -> None:
        """Gets what we lack of a node's table as it is from now on. OSError when it doesn't answer."""
        if name not in self.known:
            await self._look()  # it may have seen us before we see it
        known = self.known.get(name)
        while known is not None and known.pulling is not None:
            await known.pulling.wait()
        if known is None:
            return
        known.pulling = trio.Event()
        try:
            answer = await self.peers.ask(name, Pull(self.copies.summary_of(name)), PATIENCE)
            if isinstance(answer, Pulled) and self._apply(records.decode_delta(answer.delta)):
                known.agreed = self.clock()
        except AppSwitchError as error:
            log.warning("a table that can't be read", node=name, reason=error.message)
        finally:
            known.pulling.set()
            known.pulling = None

    # --- for people

    def called(self, name: str) -> Node:
        """What is known of the node of that name."""
        if name == self.own.name:
            return self.own
        return self.known[name].node if name in self.known else Node(name)

    def standings(self) -> Iterator[Standing]:
        """All nodes, this one first."""
        yield Standing(self.own, self.log.summary.seq, self.clock())
        for name, known in sorted(self.known.items()):
            if known.failed is not None and trio.current_time() >= known.failed + KEPT:
                continue  # Serf remembers it for a day
            summary = self.copies.summary_of(name)
            yield Standing(known.node, summary.seq if summary else None, known.agreed)

    def own_ports(self) -> set[tuple[Address, int]]:
        """Where the nodes talk to each other: Serf's ports and the next ones."""
        nodes = [self.own, *(each.node for each in self.known.values())]
        there = [(ip_address(each.address), each.port) for each in nodes if each.address and each.port]
        return {(ip, each) for ip, port in there for each in (port - 1, port)}

    def gateways(self) -> list[str]:
        """Of the other nodes: those that are alive; where none is, those that may have come back unseen."""
        there = [each.node for each in self.known.values() if each.node.gateway and not each.forgotten]
        alive = [each for each in there if each.state is NodeState.ALIVE]
        return [each.name for each in alive or there]

    async def until_agreed(self) -> None:
        """Waits until this node and each living one have all of the other's table."""
        while not await self._agrees():  # noqa: ASYNC110 - that another one has ours is known when it is asked
            await trio.sleep(PAUSE)

    async def _agrees(self) -> bool:
        if self.serf.refused is not None:
            self.obstacle = f"this host isn't let in: {self.serf.refused}"
            return False
        if not self.serf.has_met:
            self.obstacle = "no host that this one was told to join has let it in"
            return False
        if not await self._look():
            self.obstacle = "a host that has just started has not said what it has"
            return False
        self._write_log()
        living = [each.node.name for each in self.known.values() if each.node.state is NodeState.ALIVE]
        agreeing: list[str] = []
        async with trio.open_nursery() as nursery:
            for name in living:
                nursery.start_soon(self._compare, name, agreeing)
        missing = sorted(set(living) - set(agreeing))
        self.obstacle = f"this host and {', '.join(missing)} don't have the same tables yet"
        return not missing

    async def _compare(self, name: str, agreeing: list[str]) -> None:
        try:
            told = await self.peers.ask(name, Status(self.log.summary, self.copies.summary_of(name)), PATIENCE)
            if not isinstance(told, Status):
                return
            if self.copies.heard(name, told.mine):
                await self.refresh(name)
            elif told.yours == self.log.summary:
                self.known[name].agreed = self.clock()
                agreeing.append(name)
        except OSError:
            pass  # it isn't alive, then, or comes back
