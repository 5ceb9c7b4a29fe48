"""The usual way in for clients outside: to instances on this host, where nothing is to be decided for each connection
but how many there may be.

A thread of C (shim/gateway/door.c) accepts the connections of the ports that are served so, and hands each over to the
instance whose turn it is, so no client waits for Python, nor for what other tasks do. It is edge/ingress.py's way in a
tenth of the time; whatever isn't usual is left to that: instances elsewhere, or that want a PROXY protocol head, rules
about clients' addresses, audits, least connections, and an instance that doesn't take a connection at once.

What the thread has done is taken from it some fifty times a second, and whenever somebody wants to know: then the
connections have their names, and are told of as events.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import trio
from attrs import define, field, frozen

from appswitch._gateway import ffi, lib
from appswitch.core.balance import Balancer
from appswitch.core.exposing import Gateway
from appswitch.edge.apps import Apps
from appswitch.edge.deliver import Deliverer
from appswitch.edge.gate import Gate, plain, reset
from appswitch.edge.policing import Policing
from appswitch.edge.relayed import wants_head
from appswitch.edge.tcp_names import WayIn, facts_of
from appswitch.model import Exposure, Kind, Listener

AT_ONCE = 256  # connections that are taken from the thread in one go
TAKE_EVERY = 0.02  # seconds
HANDED = struct.Struct("@Q52sii4x")  # struct as_handed


@frozen
class Plan:
    """Who takes turns while the epoch lasts."""

    instances: list[Listener]
    ways: list[WayIn]


@define
class Served:
    """A port that the thread serves, or has paused. native: its instances, which the thread changes."""

    plan: Plan
    native: Any
    handles: ExitStack
    """Descriptors of our own: a listener may go, and the number of its descriptor be another's."""
    paused: trio.Event = field(factory=trio.Event)
    why: int = 0
    accepted: int = -1
    error: int = 0


@define
class Express:
    """Of a gateway that lets clients in without their first byte."""

    gateway: Gateway
    apps: Apps
    policing: Policing
    balancer: Balancer
    deliverer: Deliverer
    gate: Gate
    _door: Any = field(init=False)
    _plans: dict[tuple[Exposure, int], Plan | None] = field(factory=dict)
    _epoch: int = 0
    """When the plans were made."""
    _served: dict[int, Served] = field(factory=dict)
    """By the descriptor of the listening socket."""
    _taken: Any = field(factory=lambda: ffi.new("struct as_handed[]", AT_ONCE))

    def __attrs_post_init__(self) -> None:
        """OSError."""
        made = lib.as_door_open(self.apps.epoch.fd, self.deliverer.named.salt, self.gate.turnstile.native)
        if made == ffi.NULL:
            raise OSError(ffi.errno, os.strerror(ffi.errno))
        self._door = ffi.gc(made, lib.as_door_free)
        self.deliverer.names.takers.append(self.take)

    async def run(self) -> None:
        """Serves, for ever."""
        with self._thread():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._hear_pauses, nursery)
                nursery.start_soon(self._keep_taking)

    @contextmanager
    def _thread(self) -> Iterator[None]:
        thread = threading.Thread(target=lib.as_door_run, args=[self._door], name="door")
        thread.start()
        try:
            yield
        finally:
            lib.as_door_stop(self._door)
            thread.join()
            self.take()

    async def hand_over(self, listening: socket.socket, exposure: Exposure) -> list[socket.socket] | None:
        """Has instances take who comes, until somebody is left to be brought to one: they are returned. None: clients
        are to be accepted singly for now. OSError as of accept.
        """
        plan = self._plan(exposure, 6 if listening.family == socket.AF_INET6 else 4)
        served = self._serve(listening.fileno(), plan) if plan else None
        if served is None:
            self.leave(listening)
            return None
        await served.paused.wait()
        accepted = [socket.socket(fileno=served.accepted)] if served.accepted >= 0 else []
        served.accepted = -1
        if served.why == lib.AS_STALE:
            self.take()  # there may be no room for more
        elif served.why == lib.AS_UNACCEPTED:
            raise OSError(served.error, os.strerror(served.error))
        elif served.why == lib.AS_CROWDED:
            return [each for each in accepted if await self._may_stay(each)]
        return accepted

    async def _may_stay(self, accepted: socket.socket) -> bool:
        try:
            if await self.gate.may_stay(plain(accepted.getpeername()[0])):
                return True
        except OSError:  # it has been reset already; the next count will say so
            pass
        except BaseException:
            accepted.close()
            raise
        reset(accepted)
        return False

    def leave(self, listening: socket.socket) -> None:
        """The port isn't served any longer; to be called before it is closed."""
        served = self._served.get(listening.fileno())
        if served is not None:
            lib.as_leave(self._door, listening.fileno())
            self._retire(listening.fileno(), served)

    def _retire(self, number: int, served: Served) -> None:
        """The thread goes by it no longer."""
        self.take()
        del self._served[number]
        served.handles.close()
        earned = {each.id: native.credit for each, native in zip(served.plan.instances, served.native, strict=True)}
        self.balancer.settle(earned)
        if served.accepted >= 0:
            os.close(served.accepted)
            served.accepted = -1

    def _serve(self, number: int, plan: Plan) -> Served | None:
        """None: it can't be, for want of descriptors or memory."""
        served = self._served.get(number)
        if served is None or served.plan is not plan:
            if served is not None:
                self._retire(number, served)
            served = self._open(plan)
        if served is None:
            return None
        served.paused = trio.Event()
        self._served[number] = served
        if lib.as_serve(self._door, number, self._epoch, served.native, len(plan.instances)) < 0:
            self._retire(number, served)
            return None
        return served

    def _open(self, plan: Plan) -> Served | None:
        shares = self.balancer.shares(plan.instances)
        native = ffi.new("struct as_instance[]", len(shares))
        with ExitStack() as stack:
            try:
                for (listener, part, credit), each in zip(shares, native, strict=True):
                    each.handle = os.dup(self.deliverer.named.handle(listener))
                    stack.callback(os.close, each.handle)
                    each.family, each.part, each.credit = listener.family, part, credit
            except (OSError, KeyError):
                return None
            return Served(plan, native, stack.pop_all())

    def _plan(self, exposure: Exposure, version: int) -> Plan | None:
        if self._epoch != self.apps.epoch.now:
            self._epoch = self.apps.epoch.now
            self._plans.clear()
        key = exposure, version
        if key not in self._plans:
            self._plans[key] = self._make_plan(*key)
        return self._plans[key]

    def _make_plan(self, exposure: Exposure, version: int) -> Plan | None:
        """None: there is something to be decided for each connection."""
        plan = self.gateway.plan_anybody(self.apps.table, self.policing.policy, exposure, version)
        if plan is None:
            return None
        instances = self.balancer.first_tier(plan.candidates)
        if not all(self.apps.table.is_local(each.app) and not wants_head(each) for each in instances):
            return None
        rules = {each.listener.id: each.verdict.rule for each in plan.judged}
        return Plan(instances, [WayIn(each, rules[each.id]) for each in instances])

    async def _hear_pauses(self, nursery: trio.Nursery) -> None:
        bell = lib.as_door_pauses(self._door)
        paused, closed = ffi.new("struct as_paused *"), ffi.new("struct as_closed *")
        while True:
            await trio.lowlevel.wait_readable(bell)
            os.eventfd_read(bell)
            while lib.as_next_paused(self._door, paused):
                served = self._served[paused.listening]
                served.why, served.accepted, served.error = paused.why, paused.accepted, paused.error
                served.paused.set()
            lib.as_what_closes(self._door, closed)
            if closed.error:
                self.gate.trouble.note(closed.error)
            if closed.full:
                nursery.start_soon(self._count)

    async def _count(self) -> None:
        await self.gate.count()
        lib.as_look_again(self._door)

    async def _keep_taking(self) -> None:
        bell = lib.as_door_news(self._door)
        while True:
            await trio.lowlevel.wait_readable(bell)
            os.eventfd_read(bell)
            self.take()
            await trio.sleep(TAKE_EVERY)

    def take(self) -> None:
        """What was handed over has its name, and is told of, from now on."""
        while count := lib.as_take(self._door, self._taken, AT_ONCE):
            rows = HANDED.iter_unpack(ffi.buffer(self._taken, count * HANDED.size))
            came = {
                cookie: (packed, self._served[listening].plan.ways[instance])
                for cookie, packed, listening, instance in rows
            }
            self.deliverer.names.put_all(came)
            self.apps.events.publish_all(Kind.CONNECT, facts_of, list(came.values()))
