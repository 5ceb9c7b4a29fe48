"""Clients outside whose instances are all on other hosts: the relay takes them in by itself, and brings them there by
lanes, so that nothing of Python is in their way (shim/relay/take_in.c, dials.c).

For each port that is served so we ask the instances' nodes for a lane (edge/lanes_in.py); then the port is a
door of the relay, which has the lanes take turns. A lane is replaced by a fresh one before it ends, and given up when
its node's trap handler has ended, or when it leads nowhere; a door at which nobody comes is shut. Whoever isn't taken
comes back, untouched, and goes the way of everybody else (edge/ingress.py); so does everybody where something is to be
decided for each connection.
"""

from __future__ import annotations

import errno
import itertools
import socket
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address

import structlog
import trio
from attrs import define, field

from appswitch.core.balance import Balancer, one_round
from appswitch.core.exposing import Gateway
from appswitch.edge.apps import Apps
from appswitch.edge.gate import reset
from appswitch.edge.passed import Passed
from appswitch.edge.peer_channel import Channel
from appswitch.edge.peers import Peers
from appswitch.edge.policing import Policing
from appswitch.edge.relay import Relay
from appswitch.edge.relayed import wants_head
from appswitch.model import Exposure, Listener
from appswitch.wire import lanes
from appswitch.wire.lanes import LANE_LASTS, MOST_DOORS, MOST_LANES, MOST_TURNS
from appswitch.wire.peer import LaneOpened, OpenLane

ANSWERS_WITHIN = 0.3  # seconds; as edge/remote.py has it
RENEW_AFTER = LANE_LASTS / 2
AGAIN_AFTER = 0.2  # seconds; whoever refuses a client is asked whether the lane is there still, no more often than so
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 10.0  # seconds until another lane is asked for where one couldn't be had
TOLD_WITHIN = 1.0  # seconds

log = structlog.get_logger()


@define
class Lane:
    """place: the relay's number of it; channel: over which it was agreed on; fresh_until: trio's clock."""

    place: int
    number: int
    channel: Channel
    opened: float
    fresh_until: float
    used: bool = False


@define
class Door:
    """A port; it is one of the relay's once it has turns. lanes: by the listener's id."""

    number: int
    exposure: Exposure
    version: int
    listening: socket.socket
    instances: list[tuple[Listener, str]] = field(factory=list)
    """Those that take turns, and by which rule clients may come; none: not by lanes."""
    seen: object = None
    """The state of the table and the policy for which that was found."""
    lanes: dict[int, Lane] = field(factory=dict)
    turns: list[int] = field(factory=list)
    returned: list[socket.socket] = field(factory=list)
    paused: dict[int, tuple[float, float]] = field(factory=dict)
    """Where no lane could be had, by the listener's id: until when, and how long."""
    stirred: trio.Event = field(factory=trio.Event)

    def stir(self) -> None:
        """There is something to do."""
        self.stirred.set()


@define
class Doors:
    """Those of a gateway. idle: seconds, as of Relay.join."""

    gateway: Gateway
    apps: Apps
    policing: Policing
    balancer: Balancer
    peers: Peers
    relay: Relay
    passed: Passed
    idle: float | None = None
    _doors: dict[int, Door] = field(factory=dict)
    """By the relay's numbers of them."""
    _changes: int = 0
    _places: Iterator[int] = field(factory=lambda: itertools.cycle(range(MOST_LANES)))
    _channel: socket.socket | None = None
    _opening: trio.Lock = field(factory=trio.Lock)
    _asking: trio.Lock = field(factory=trio.Lock)
    _questions: Iterator[int] = field(factory=lambda: itertools.cycle(range(1, 1 << 31)))
    _answered: dict[int, trio.Event] = field(factory=dict)
    _nursery: trio.Nursery = field(init=False)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """For ever."""
        try:
            async with trio.open_nursery() as self._nursery:
                task_status.started()
                while True:
                    await self.apps.changed()
                    self._changes += 1
                    for door in self._doors.values():
                        door.stir()
        finally:
            if self._channel is not None:
                self._channel.close()
            for door in self._doors.values():
                _drop(door.returned)

    async def hand_over(self, listening: socket.socket, exposure: Exposure) -> list[socket.socket] | None:
        """Has the relay take in who comes, until somebody is left to be brought to an instance: they are returned.
        None: clients are to be accepted here for now.
        """
        door = self._find(listening) or self._new(listening, exposure)
        while door is not None:
            door.stirred = trio.Event()
            try:
                is_open = await self._settle(door)
            except OSError as error:
                log.warning("no relay", reason=error.strerror)
                is_open = False
            if door.returned:
                returned, door.returned = door.returned, []
                return returned
            if not is_open:
                break
            renewal = min(each.fresh_until for each in door.lanes.values())
            with trio.move_on_at(renewal) as scope:
                await door.stirred.wait()
            if scope.cancelled_caught and not any(each.used for each in door.lanes.values()):
                break  # nobody comes
        self.leave(listening)
        await trio.lowlevel.checkpoint_if_cancelled()  # then it is closed
        keep_urgent(listening, False)
        return None

    def leave(self, listening: socket.socket) -> None:
        """The port isn't a door any longer."""
        door = self._find(listening)
        if door is not None and door.turns:
            self._shut(door)

    def forget(self, listening: socket.socket) -> None:
        """The port is about to be closed."""
        door = self._find(listening)
        if door is not None:
            self.leave(listening)
            _drop(door.returned)
            del self._doors[door.number]

    def _find(self, listening: socket.socket) -> Door | None:
        return next((each for each in self._doors.values() if each.listening is listening), None)

    def _new(self, listening: socket.socket, exposure: Exposure) -> Door | None:
        number = next((each for each in range(MOST_DOORS) if each not in self._doors), None)
        if number is None:
            return None
        door = Door(number, exposure, 6 if listening.family == socket.AF_INET6 else 4, listening)
        self._doors[number] = door
        return door

    # --- what there is to be

    async def _settle(self, door: Door) -> bool:
        """Whether it is open now. OSError: there is no relay."""
        self._look(door)
        if not door.instances:
            return False
        now = trio.current_time()
        for listener_id, lane in list(door.lanes.items()):
            if lane.channel.is_over or all(listener_id != each.id for each, _ in door.instances):
                del door.lanes[listener_id]
        wanted = [each for each in door.instances if self._wants_lane(door, each[0], now)]
        if wanted:
            async with trio.open_nursery() as nursery:
                for listener, rule in wanted:
                    nursery.start_soon(self._open_lane, door, listener, rule)
            self._look(door)
        leading = [each for each, _ in door.instances if each.id in door.lanes]
        if not leading:
            return False
        turns = [door.lanes[each.id].place for each in one_round(leading, MOST_TURNS)]
        if not door.turns:
            keep_urgent(door.listening, True)
            self._send(lanes.encode_door(door.number, turns, self.idle), door.listening)
        elif door.turns != turns:
            self._send(lanes.encode_turns(door.number, turns))
        door.turns = turns
        return True

    def _look(self, door: Door) -> None:
        state = self._changes, self.apps.epoch.now
        if door.seen != state:
            door.seen = state
            door.instances = self._instances(door)
            if not door.instances and door.turns:
                self._shut(door)

    def _instances(self, door: Door) -> list[tuple[Listener, str]]:
        plan = self.gateway.plan_anybody(self.apps.table, self.policing.policy, door.exposure, door.version)
        if plan is None:
            return []
        first = self.balancer.first_tier(plan.candidates)
        if any(self.apps.table.is_local(each.app) or wants_head(each) for each in first):
            return []
        rules = {each.listener.id: each.verdict.rule for each in plan.judged}
        return [(each, rules[each.id]) for each in first]

    def _wants_lane(self, door: Door, listener: Listener, now: float) -> bool:
        lane = door.lanes.get(listener.id)
        if lane is not None:
            return lane.fresh_until <= now
        return door.paused.get(listener.id, (0.0, 0.0))[0] <= now

    # --- lanes

    async def _open_lane(self, door: Door, listener: Listener, rule: str) -> None:
        """A fresh one, if there can be one."""
        node = listener.app.node
        old = door.lanes.pop(listener.id, None)
        try:
            answer, channel = await self.peers.ask_by_channel(
                node, OpenLane(listener.number, door.version), ANSWERS_WITHIN
            )
            address = self.peers.address_of(node)
            if not isinstance(answer, LaneOpened) or address is None:
                raise OSError(errno.EPROTO, "it answers something else")
            await self._connect_relay()
            place, key = self._new_place(), lanes.lane_key(channel.session, answer.number)
            self._send(lanes.encode_lane(place, answer.number, key, (ip_address(address[0]), address[1])))
        except OSError as error:
            log.debug("no lane", peer=node, reason=error.strerror)
            self._pause(door, listener)
            return
        now = trio.current_time()
        self.passed.opened(answer.number, listener, rule)
        door.lanes[listener.id] = Lane(place, answer.number, channel, now, now + RENEW_AFTER)
        door.paused.pop(listener.id, None)
        if old is None or old.channel is not channel:
            self._nursery.start_soon(self._stir_at_end, channel, door)

    def _new_place(self) -> int:
        """OSError: there is none. What had it has gone from all turns long ago."""
        taken = {lane.place for door in self._doors.values() for lane in door.lanes.values()}
        if len(taken) == MOST_LANES:
            raise OSError(errno.ENOSPC, f"there are {MOST_LANES} lanes already")
        return next(each for each in self._places if each not in taken)

    async def _stir_at_end(self, channel: Channel, door: Door) -> None:
        await channel.ended.wait()
        door.stir()

    def _pause(self, door: Door, listener: Listener) -> None:
        _, pause = door.paused.get(listener.id, (0.0, FIRST_PAUSE / 2))
        pause = min(2 * pause, LONGEST_PAUSE)
        door.paused[listener.id] = trio.current_time() + pause, pause

    def _came_back(self, door: Door, place: int, error: int) -> None:
        """It leads nowhere; or the other node has refused a client, which says less."""
        found = next(((key, lane) for key, lane in door.lanes.items() if lane.place == place), None)
        if found is None:
            return
        listener_id, lane = found
        if error == errno.ECONNREFUSED:
            lane.fresh_until = min(lane.fresh_until, lane.opened + AGAIN_AFTER)
        else:
            del door.lanes[listener_id]
            listener = self.apps.table.listeners.get(listener_id)
            if listener is not None:
                self._pause(door, listener)

    # --- the relay

    async def _connect_relay(self) -> None:
        """OSError: there is none."""
        async with self._opening:
            if self._channel is not None:
                return
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            try:
                await self.relay.lend_doors(theirs)
            except BaseException:
                ours.close()
                raise
            ours.setblocking(False)
            self._channel = ours
            self._nursery.start_soon(self._hear, ours)

    def _send(self, message: bytes, listening: socket.socket | None = None) -> None:
        """OSError: it has gone, or doesn't listen."""
        if self._channel is None:
            raise BrokenPipeError(errno.EPIPE, "the relay has gone")
        fds = [listening.fileno()] if listening is not None else []
        try:
            socket.send_fds(self._channel, [message], fds, socket.MSG_NOSIGNAL)
        except OSError:
            self._lose()
            raise

    def _shut(self, door: Door) -> None:
        door.turns = []
        with suppress(OSError):
            self._send(lanes.encode_shut(door.number))

    def _lose(self) -> None:
        """The relay has gone, or another one takes over: it has neither lanes nor doors."""
        if self._channel is not None:
            with suppress(OSError):
                self._channel.shutdown(socket.SHUT_RDWR)
            self._channel = None
        for door in self._doors.values():
            door.lanes.clear()
            door.turns = []
            door.stir()
        for event in self._answered.values():
            event.set()

    async def _hear(self, channel: socket.socket) -> None:
        with channel:
            while True:
                await trio.lowlevel.wait_readable(channel)
                try:
                    data, fds, _, _ = socket.recv_fds(channel, lanes.MOST_REPORT, 1, socket.MSG_CMSG_CLOEXEC)
                except BlockingIOError:
                    continue
                except OSError:
                    data, fds = b"", []
                if not data:
                    break
                self._take(lanes.decode_report(data), [socket.socket(fileno=fd) for fd in fds])
            if self._channel is channel:
                self._lose()

    def _take(self, report: lanes.Report, clients: list[socket.socket]) -> None:
        used = self.passed.take(report.entries) if report.entries else set()
        if used:
            for lane in [each for door in self._doors.values() for each in door.lanes.values()]:
                lane.used = lane.used or lane.number in used
        if report.answered in self._answered:
            self._answered[report.answered].set()
        door = self._doors.get(report.door) if report.door is not None else None
        if door is None:
            _drop(clients)
        else:
            self._came_back(door, report.lane, report.error)
            door.returned += clients
            door.stir()

    async def flush(self) -> None:
        """Whoever has gone through a door until now has a name; nobody goes by an older policy any more."""
        for door in self._doors.values():
            if door.turns and door.seen != (self._changes, self.apps.epoch.now):
                self._shut(door)
                door.stir()
        if self._channel is None:
            return
        async with self._asking:
            number = next(self._questions)
            answered = self._answered[number] = trio.Event()
            try:
                self._send(lanes.encode_question(number))
                with trio.move_on_after(TOLD_WITHIN):
                    await answered.wait()
            except OSError:
                pass
            finally:
                del self._answered[number]


def keep_urgent(listening: socket.socket, wanted: bool) -> None:
    """Of clients for the relay no urgent byte may take the place of another, also before it has accepted them."""
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, wanted)


def _drop(clients: list[socket.socket]) -> None:
    for each in clients:
        reset(each)
    clients.clear()
