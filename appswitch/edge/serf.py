"""Serf: who else is there, and what they say. An agent of our own: started, watched, started again.

Four connections to it, since it answers the questions of one in turn: one for events and what is answered at once, one
for the stream of what happens, one for joins, which take long, and one for tags, which take until they have been sent,
some half a second. When one of them fails, or the agent ends, all is started anew, under a new name within Serf
(core/membership.py); the addresses that were known are joined again, so nothing of the agent's need be kept.

Serf by itself looks for failed members every 30 s, at one of them. We do so every second, at all of them, and while we
are alone at the hosts that we were told to join, too.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from pathlib import Path

import structlog
import trio
from attrs import frozen

from appswitch.core.membership import CLAIM, Member, Status, agent_name, holders, parse_member
from appswitch.edge.serf_agent import Agent, AgentSettings, start
from appswitch.edge.serf_claim import OwnClaim
from appswitch.edge.serf_joins import Address, Joins
from appswitch.edge.serf_rpc import Rpc, RpcError
from appswitch.errors import AppSwitchError
from appswitch.host.succession import Successor
from appswitch.wire import serf as wire

log = structlog.get_logger()

PORT = 7946
LOOK_EVERY = 1.0  # seconds
SEEK_EVERY = 10  # looks
SOUGHT_FOR = 86400.0  # seconds, as Serf's reconnect_timeout
RESTART_FIRST, RESTART_MOST = 0.1, 5.0  # seconds
WORKED_FOR = 10.0  # seconds; an agent that has lived as long was all right
FORCE_LEAVE_WITHIN, LEAVE_WITHIN = 10.0, 4.0  # seconds
LOCATED_A_LOOK = 8  # members
MAX_EVENT = 480  # bytes
QUEUE = 1024  # messages
EVENT = "as"  # the name of our user events
STREAMED = "user,member-join,member-leave,member-failed,member-update,member-reap"


@frozen
class UserEvent:
    """A node says something; what this one says comes back, too."""

    payload: bytes


@frozen
class MembersChanged:
    """Ask for `members`, or look at `refused`."""


@frozen
class Reconnected:
    """There is an agent, as of now. Events and changes may have been missed."""


Message = UserEvent | MembersChanged | Reconnected


@frozen
class SerfSettings:
    """bind: where the others reach us; directory: for what is ours; key: base64; program: a name on PATH, or a path."""

    node: str
    directory: Path
    bind: Address
    join: tuple[Address, ...] = ()
    key: str | None = None
    program: str = "serf"


class Serf:
    """messages: what happens.

    Without an agent (it is being started again) what is said is lost, and members are those that there were.
    """

    def __init__(self, settings: SerfSettings, successor: Successor | None = None) -> None:
        """successor: who takes our place; once it has come, we don't take leave: this node stays."""
        self._settings = settings
        self._successor = successor or Successor()
        self._send, self.messages = trio.open_memory_channel[Message](QUEUE)
        self._claim = OwnClaim.read(settings.node, settings.directory / "claim")
        self._joins = Joins()
        self._started = 0
        """Nanoseconds since the epoch: our agent."""
        self._agent: Agent | None = None
        self._rpc: Rpc | None = None
        self._tagging: Rpc | None = None
        self._tags: dict[str, str] = {}
        self._members: list[Member] = []
        """All, also those whose name is another's."""
        self._nodes: dict[str, Member] = {}
        self._settled = False
        """Whether the present agent has had the time to join."""
        self._seen: dict[Address, float] = {}
        """Where others were, when last; also those that Serf has forgotten, as after a long time apart."""
        self._looks = 0
        self._met = False
        """Whether there is nobody that we should ask first before we claim our name."""
        self._located: dict[str, tuple[float, wire.Vector]] = {}
        """node -> when we asked, and where it is."""
        self._complaint = ""

    @property
    def refused(self) -> str | None:
        """Why this node is no member, although it reaches others: another one has its name. None: it is a member."""
        return self._claim.refused

    @property
    def has_met(self) -> bool:
        """Whether this node has joined others, or there were none to join."""
        return self._met

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until it is cancelled; then it takes leave of the others, which takes a second or two.

        Started: the agent answers. AppSwitchError: the first one can't be started.
        """
        pause = RESTART_FIRST
        is_first = True
        while True:
            began = trio.current_time()
            try:
                agent, rpc = await start(self._agent_settings())
            except AppSwitchError as error:
                if is_first:
                    raise
                why = error.message
            else:
                if is_first:
                    task_status.started()
                    is_first = False
                why = await self._live(agent, rpc)
            if trio.current_time() - began > WORKED_FOR:
                pause = RESTART_FIRST
            log.warning("the Serf agent is started again", reason=why, after=pause)
            await trio.sleep(pause)
            pause = min(2 * pause, RESTART_MOST)

    async def members(self) -> list[Member]:
        """The nodes, this one among them. A name stands for one, though others may claim it.

        While this node's own name isn't its own, there is nobody: it must not speak to the others by that name.
        """
        if self._rpc is not None:
            with suppress(OSError, ValueError, RpcError):
                await self._fetch(self._rpc)
        return list(self._nodes.values()) if self._claim.holds else []

    async def event(self, payload: bytes) -> None:
        """Tells all nodes, sooner or later, or not. ValueError: it is more than MAX_EVENT."""
        if len(payload) > MAX_EVENT:
            raise ValueError(f"an event of {len(payload)} bytes; {MAX_EVENT} at most")
        if self._claim.holds:
            await self._try(self._rpc, "event", {"Name": EVENT, "Payload": payload, "Coalesce": False})

    async def set_tags(self, tags: Mapping[str, str]) -> None:
        """What all see of us in `members`, in the place of what was set before. Serf takes some 470 bytes."""
        gone = self._tags.keys() - tags.keys()
        self._tags = dict(tags)
        await self._try(self._tagging, "tags", {"Tags": self._all_tags(), "DeleteTags": sorted(gone)})

    async def force_leave(self, node: str) -> None:
        """Makes all forget a failed node. One that is alive after all comes back."""
        for member in [each for each in self._members if each.name == node and each.status is Status.FAILED]:
            await self._forget(member)

    def distance(self, node: str) -> float | None:
        """The round trip to it, estimated, in seconds; None: not known."""
        ours, theirs = self._located.get(self._settings.node), self._located.get(node)
        with suppress(ValueError):
            return ours[1].distance(theirs[1]) if ours and theirs else None
        return None

    async def _live(self, agent: Agent, rpc: Rpc) -> str:
        """An agent's life. Returns why it is over."""
        why = ""

        async def until_it_ends(work: Callable[..., Awaitable[None]], *args: object) -> None:
            nonlocal why
            try:
                await work(*args)
            except (OSError, ValueError, RpcError) as error:
                why = why or str(error)
            nursery.cancel_scope.cancel()

        self._agent, self._rpc, self._tagging, self._settled = agent, rpc, rpc, False
        cancelled = True
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(until_it_ends, agent.ended)
                nursery.start_soon(until_it_ends, agent.listen, self._joins.hear)
                nursery.start_soon(until_it_ends, self._stream, agent)
                nursery.start_soon(until_it_ends, self._take_tags, agent)
                nursery.start_soon(until_it_ends, self._keep, agent, rpc)
            cancelled = False
            return why or "it has ended"
        finally:
            self._agent = self._rpc = self._tagging = None
            if cancelled and not self._successor.has_come:
                await _leave(agent)
            agent.close()
            await rpc.aclose()

    async def _stream(self, agent: Agent) -> None:
        async with aclosing(await agent.connect()) as rpc:
            await rpc.ask("stream", {"Type": STREAMED})
            await self._send.send(Reconnected())
            while True:
                record = await rpc.event()
                if record.event != "user":
                    await self._send.send(MembersChanged())
                elif record.name == EVENT:
                    await self._send.send(UserEvent(wire.raw_bytes(record.payload)))

    async def _take_tags(self, agent: Agent) -> None:
        async with aclosing(await agent.connect()) as rpc:
            self._tagging = rpc
            # They may have changed while the agent started.
            await self._try(rpc, "tags", {"Tags": self._all_tags(), "DeleteTags": []})
            await trio.sleep_forever()

    async def _keep(self, agent: Agent, rpc: Rpc) -> None:
        """Keeps us joined, and our name ours."""
        await self._fetch(rpc)
        async with aclosing(await agent.connect()) as joining:
            while True:
                self._met |= await self._joins.join(joining, self._to_join(), self._addresses(Status.ALIVE))
                self._settled = True
                await self._fetch(rpc)
                if self._claim.judge(self._members, self._started, self._met):
                    await self._try(self._tagging, "tags", {"Tags": self._all_tags(), "DeleteTags": []})
                    await self._send.send(MembersChanged())
                await self._locate(rpc)
                for predecessor in self._predecessors():
                    await self._forget(predecessor)
                await trio.sleep(LOOK_EVERY)

    async def _fetch(self, rpc: Rpc) -> None:
        """Asks the agent for the members. Until it has had the time to join, those of the one before are kept."""
        found = (await rpc.ask("members")).members or ()
        parsed = (parse_member(each.name, str(each.address), each.port, each.status, each.tags or {}) for each in found)
        members = [each for each in parsed if each is not None]
        for each in members:
            if each.started == self._started:
                self._joins.own = (each.address, each.port)
        if not self._settled:
            return
        self._members = members
        self._nodes = holders(members)
        now = trio.current_time()
        self._seen |= dict.fromkeys(self._addresses(Status.ALIVE, Status.FAILED), now)
        left = self._addresses(Status.LEFT)
        self._seen = {each: at for each, at in self._seen.items() if each not in left and now - at < SOUGHT_FOR}
        self._met |= bool(self._addresses(Status.ALIVE))

    def _addresses(self, *statuses: Status) -> set[Address]:
        """Of the others; none while we don't know of them from this agent."""
        found = (
            {(each.address, each.port) for each in self._members if each.status in statuses} if self._settled else set()
        )
        return found - {self._joins.own}

    def _to_join(self) -> set[Address]:
        """Who has failed, each time; whom we were told of or have seen while we are alone, and now and then."""
        self._looks += 1
        alive = self._addresses(Status.ALIVE)
        if not alive or self._looks % SEEK_EVERY == 0:
            return {*self._settings.join, *self._seen} - alive
        return self._addresses(Status.FAILED) - alive

    def _predecessors(self) -> list[Member]:
        """Members that we were, by now known to be gone."""
        gone = [each for each in self._members if each.status in (Status.FAILED, Status.LEFT)]
        ours = [each for each in self._members if each.started == self._started]
        return [each for each in gone if ours and ours[0].is_successor(each)]

    async def _forget(self, member: Member) -> None:
        if self._agent is not None:
            with suppress(OSError, ValueError, RpcError):
                async with aclosing(await self._agent.connect()) as rpc:  # Serf answers after some seconds only
                    await rpc.ask("force-leave", {"Node": member.agent, "Prune": True}, FORCE_LEAVE_WITHIN)

    async def _locate(self, rpc: Rpc) -> None:
        """Asks where some members are, whom we haven't asked for longest."""
        alive = {each.name: each for each in self._nodes.values() if each.is_alive}
        self._located = {name: located for name, located in self._located.items() if name in alive}
        never = (0.0, None)
        for name in sorted(alive, key=lambda each: self._located.get(each, never)[0])[:LOCATED_A_LOOK]:
            found: wire.Coordinate = await rpc.ask("get-coordinate", {"Node": alive[name].agent})
            if found.ok:
                self._located[name] = (trio.current_time(), found.coord)

    async def _try(self, rpc: Rpc | None, command: str, body: dict[str, object]) -> None:
        """Asks for something; when it isn't done we say so once. An agent that fails is seen by _keep."""
        if rpc is None:
            return
        try:
            await rpc.ask(command, body)
        except (OSError, ValueError):
            return
        except RpcError as error:
            if str(error) != self._complaint:
                log.error("Serf doesn't do what it should", command=command, reason=str(error))
            self._complaint = str(error)

    def _all_tags(self) -> dict[str, str]:
        return {**self._tags, CLAIM: str(self._claim.claim)}

    def _agent_settings(self) -> AgentSettings:
        """Of the next agent."""
        settings = self._settings
        self._started = max(time.time_ns(), self._started + 1)  # the clock may have gone back since the last one
        name = agent_name(settings.node, self._started)
        return AgentSettings(settings.program, settings.directory, name, settings.bind, settings.key, self._all_tags())


async def _leave(agent: Agent) -> None:
    """The connections may have been cut off in the middle: this takes one of its own."""
    with trio.move_on_after(LEAVE_WITHIN, shield=True), suppress(OSError, ValueError, RpcError):
        async with aclosing(await agent.connect()) as rpc:
            await rpc.ask("leave", None, LEAVE_WITHIN)
