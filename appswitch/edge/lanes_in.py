"""Lanes that lead to apps here: all clients outside of one gateway, to one listener, judged once instead of each.

A gateway asks for one over the peer channel (edge/doors.py); we judge as for a connection that is announced
(edge/arrivals.py), but for any client, so there is no lane where a rule looks at clients' addresses or wants each
connection reported. From then on a thread of C takes what comes by it (shim/lane/lanes_in.c): it accepts all that comes
to the peer port, and has us meet what isn't its own. A lane is good while the epoch is the one in which it was judged,
so whatever might change the judgement stops it at once; then it is judged once more. What it doesn't take it refuses,
and the gateway announces that client, as ever.
"""

from __future__ import annotations

import errno
import os
import secrets
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog
import trio
from attrs import define, field, frozen

from appswitch._lanes import ffi, lib
from appswitch.core.exposing import ANYBODY, is_exposed_by
from appswitch.edge.apps import Apps
from appswitch.edge.arrivals import Arrivals
from appswitch.edge.named import NamedSockets
from appswitch.edge.passed import Passed
from appswitch.edge.peer_channel import Caller
from appswitch.edge.peers import Peers
from appswitch.edge.policing import Policing
from appswitch.model import Listener, Outside
from appswitch.wire.lanes import ENTRY_SIZE, LANE_LASTS, MOST_LANES, lane_key
from appswitch.wire.peer import LaneOpened, OpenLane

AT_ONCE = 1024  # connections that are told of in one go
SWEEP_EVERY = 5.0  # seconds
NEVER = 0  # an epoch that there never is

_WORD = struct.Struct("=i")

log = structlog.get_logger()


@frozen
class Lane:
    """until: trio's clock; family: of the clients."""

    number: int
    gateway: str
    listener: Listener
    family: int
    until: float


@define
class LanesIn:
    """Those that lead to this node."""

    apps: Apps
    policing: Policing
    arrivals: Arrivals
    named: NamedSockets
    peers: Peers
    passed: Passed
    _lanes: dict[int, Lane] = field(factory=dict)
    """By the place (number % MOST_LANES)."""
    _native: Any = None
    _wanted: trio.Event = field(factory=trio.Event)
    _runs: trio.Event = field(factory=trio.Event)
    _news: trio.Event = field(factory=trio.Event)
    _entries: Any = field(factory=lambda: ffi.new("struct as_lane_entry[]", AT_ONCE))

    async def open_lane(self, caller: Caller, said: OpenLane) -> LaneOpened:
        """Of Peers.handlers. OSError EOPNOTSUPP: each connection is to be announced; others as of an announce."""
        listener = await self.arrivals.exposed(caller.node, said.listener)
        family = 6 if said.family == 6 else 4
        rule = self._judge(caller.node, listener, family)
        if rule is None:
            raise OSError(errno.EOPNOTSUPP, "each connection has to be judged there")
        self.named.check(listener)
        number = self._new_number()
        self._wanted.set()
        await self._runs.wait()
        if self._native is None:
            raise OSError(errno.EAGAIN, "lanes can't be opened there now")
        lane = Lane(number, caller.node, listener, family, trio.current_time() + LANE_LASTS)
        key, handle = lane_key(caller.session, number), self.named.handle(listener)
        error = lib.as_lane_put(self._native, number, key, handle, listener.family, family, self._epoch_for(lane))
        if error:
            raise OSError(-error, os.strerror(-error))
        self._lanes[number % MOST_LANES] = lane
        self.passed.opened(number, listener, rule)
        return LaneOpened(number)

    def _new_number(self) -> int:
        if len(self._lanes) >= MOST_LANES:
            raise OSError(errno.ENOSPC, f"{MOST_LANES} lanes lead there already")
        while True:
            number = secrets.randbits(64)
            if number and number % MOST_LANES not in self._lanes:
                return number

    def _judge(self, gateway: str, listener: Listener, family: int) -> str | None:
        """The rule by which any client may come that way; None: none may, or not any."""
        table, policy = self.apps.table, self.policing.policy
        if listener.id not in table.listeners or not listener.listening or listener.app.id in table.draining:
            return None
        if not is_exposed_by(table, gateway, listener) or policy.looks_at_clients:
            return None
        verdict = policy.decide(Outside(ANYBODY[family]), listener.app, listener.port)
        return verdict.rule if verdict.allowed and not verdict.audit else None

    def _epoch_for(self, lane: Lane) -> int:
        return self.apps.epoch.now if self._judge(lane.gateway, lane.listener, lane.family) is not None else NEVER

    async def run(self) -> None:
        """Serves for ever."""
        while True:
            await self._wanted.wait()
            try:
                with self._thread() as ours:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._hear, ours)
                        nursery.start_soon(self._keep_taking)
                        nursery.start_soon(self._keep_judged)
                        nursery.start_soon(self._keep_swept)
            except OSError as error:
                log.warning("lanes can't be opened", reason=error.strerror)
            self._wanted = trio.Event()
            self._runs.set()
            self._runs = trio.Event()

    @contextmanager
    def _thread(self) -> Iterator[socket.socket]:
        """What it tells us by. OSError: it can't be started."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            ours.setblocking(False)
            theirs.setblocking(False)
            port, epoch = self.peers.port.fileno(), self.apps.epoch.fd
            native = lib.as_lanes_in_new(port, theirs.fileno(), epoch, self.named.salt)
            if native == ffi.NULL:
                raise OSError(ffi.errno, os.strerror(ffi.errno))
            self.peers.yield_port()
            thread = threading.Thread(target=lib.as_lanes_in_run, args=[native], name="lanes")
            thread.start()
            self._native = native
            self._runs.set()
            try:
                yield ours
            finally:
                ours.close()  # then it ends
                thread.join()
                self.take()
                self._native = None
                lib.as_lanes_in_free(native)

    async def _hear(self, ours: socket.socket) -> None:
        while True:
            await trio.lowlevel.wait_readable(ours)
            try:
                (word,) = _WORD.unpack(ours.recv(_WORD.size))
            except BlockingIOError:
                continue
            if word == lib.AS_LANE_NEWS:
                self._news.set()
            elif word == lib.AS_LANE_STALE:
                self._judge_all()
            else:
                self.peers.meet(socket.socket(fileno=word))

    def take(self) -> None:
        """What has come by lanes until now has its name."""
        if self._native is None:
            return
        while count := lib.as_lanes_in_take(self._native, self._entries, AT_ONCE):
            self.passed.take(bytes(ffi.buffer(self._entries, count * ENTRY_SIZE)))

    async def _keep_taking(self) -> None:
        while True:
            await self._news.wait()
            await trio.sleep(self.passed.pause)
            self._news = trio.Event()
            self.take()

    async def _keep_judged(self) -> None:
        while True:
            self._judge_all()
            await self.apps.changed()

    def _judge_all(self) -> None:
        for lane in self._lanes.values():
            lib.as_lane_judged(self._native, lane.number, self._epoch_for(lane))

    async def _keep_swept(self) -> None:
        while True:
            await trio.sleep(SWEEP_EVERY)
            now = trio.current_time()
            for lane in [each for each in self._lanes.values() if each.until < now]:
                lib.as_lane_drop(self._native, lane.number)
                del self._lanes[lane.number % MOST_LANES]
