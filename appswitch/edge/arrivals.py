"""Connections from other nodes to apps here: announced over a peer channel, judged, then delivered (edge/deliver.py).

The other side has judged the connection, too; but what holds is the table and the policy of the node that serves. Who
the client is, its node says, and only that node can: an app is known by its node and its number there. A client from
outside is a gateway's to announce, for what it says that it exposes.

An answer reserves the client's address towards the one that it dialled, so no two connections have the same two ends.
"""

from __future__ import annotations

import errno
import itertools
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import trio
from attrs import define, field, frozen

from appswitch.core import route
from appswitch.core.exposing import is_exposed_by
from appswitch.core.policy import explain
from appswitch.core.route import Reach, Refuse
from appswitch.edge.apps import Apps
from appswitch.edge.deliver import Deliverer
from appswitch.edge.dial import PATIENCE, PAUSES, Asked
from appswitch.edge.expected import ARRIVES_WITHIN, ExpectedConnections
from appswitch.edge.named import Pair
from appswitch.edge.peer_channel import Caller
from appswitch.edge.policing import Policing
from appswitch.edge.tcp_names import Ends
from appswitch.model import App, Kind, Listener, Outside, Party
from appswitch.wire.addresses import unpack_ip
from appswitch.wire.peer import NO_APP, Announce, Announced

MOST_WAITING = 128  # for room in the queue of one listener, which has thousands in it by then
REFRESH_WITHIN = 0.2  # seconds; whoever has announced doesn't wait much longer (edge/remote.py)
RESET = struct.pack("ii", 1, 0)  # struct linger: close aborts the connection (socket(7))


@frozen
class Expected:
    """A connection that was announced. carrier: it has the client's name already; until: its patience, trio's clock."""

    client: Party
    ends: Ends
    listener: Listener
    carrier: socket.socket
    until: float


@define
class Arrivals:
    """Those of one node. refresh: fetches what another node has to say of its apps."""

    apps: Apps
    policing: Policing
    deliverer: Deliverer
    expected: ExpectedConnections
    refresh: Callable[[str], Awaitable[None]]
    _waiting: Counter[int] = field(factory=Counter)
    """By the id of the listener."""

    async def announce(self, caller: Caller, said: Announce) -> Announced:
        """Of Peers.handlers. OSError with the errno for the client; EADDRINUSE: another port of its might be free."""
        source, dest = (unpack_ip(said.source_ip), said.source_port), (unpack_ip(said.dest_ip), said.dest_port)
        client: Party
        if said.app == NO_APP:
            client = Outside(source[0])
            listener = await self._judge_outside(client, caller.node, (source, dest), said.listener)
        else:
            client = await self.client_of(caller.node, said.app)
            listener = self._judge(client, source, dest, said.listener)
        self.deliverer.named.check(listener)
        asked = Asked(_app(client), dest, 6 if said.family == 6 else 4)
        try:
            carrier = await self.deliverer.address(source, asked, listener)
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
            raise OSError(errno.EADDRINUSE, error.strerror) from None
        until = trio.current_time() + ARRIVES_WITHIN + PATIENCE
        announced = Expected(client, (source, dest), listener, carrier, until)
        self.deliverer.names.reserve(announced.ends)
        take, drop = partial(self._take, announced), partial(self._drop, announced)
        return Announced(
            self.expected.add(caller.session, take, drop, client.id if isinstance(client, App) else caller.node)
        )

    async def client_of(self, node: str, number: int) -> App:
        """The app that has this number on another node. OSError EAGAIN: it isn't known here, yet: we may have only just
        started.
        """
        table = self.apps.table
        if table.app_of(node, number) is None:  # it may just have been started
            await self._refresh(node)
        client = table.app_of(node, number)
        if client is None or table.is_local(client):
            raise OSError(errno.EAGAIN, f"app {node}/{number} isn't known there")
        return client

    async def _refresh(self, node: str) -> None:
        with trio.move_on_after(REFRESH_WITHIN), suppress(OSError):
            await self.refresh(node)

    async def exposed(self, gateway: str, number: int) -> Listener:
        """A listener of this host that clients outside may come to through that node. ConnectionRefusedError; OSError
        EAGAIN: what that exposes isn't known here, yet.
        """
        table = self.apps.table
        listener = table.listeners.get(number)
        if listener is None or not table.is_local(listener.app) or not listener.listening:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "that isn't served there any more")
        if not is_exposed_by(table, gateway, listener):  # it may just have opened the port
            await self._refresh(gateway)
        if not is_exposed_by(table, gateway, listener):
            raise OSError(errno.EAGAIN, f"what gateway {gateway} exposes isn't known there")
        return listener

    async def _judge_outside(self, client: Outside, gateway: str, ends: Ends, number: int) -> Listener:
        """As below, for one that has come to a gateway; OSError EAGAIN as of `exposed`."""
        listener = await self.exposed(gateway, number)
        verdict = self.policing.policy.decide(client, listener.app, listener.port)
        if not verdict.allowed:
            reason = explain(verdict, client, listener.app)
            self._publish_denied(client, listener, ends, verdict.rule, reason)
            raise ConnectionRefusedError(errno.ECONNREFUSED, reason)
        return listener

    def _judge(self, client: App, source: Pair, dest: Pair, number: int) -> Listener:
        """The listener, if the client may go there. ConnectionRefusedError."""
        table = self.apps.table
        plan = route.plan_connect(table, self.policing.policy, client, *dest, gateway=False, bound=source)
        if isinstance(plan, Reach) and source[1]:
            for each in plan.candidates:
                if each.id == number and table.is_local(each.app):
                    return each
        if isinstance(plan, Refuse):
            if plan.denied:
                server = plan.judged[0].listener if plan.judged else None
                self._publish_denied(client, server, (source, dest), plan.rule, plan.reason)
            raise ConnectionRefusedError(errno.ECONNREFUSED, plan.reason)
        raise ConnectionRefusedError(errno.ECONNREFUSED, "that isn't served there any more")

    async def _take(self, expected: Expected, end: socket.socket) -> None:
        if not await self._deliver(expected, end):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    async def _deliver(self, expected: Expected, end: socket.socket) -> bool:
        """False: nobody takes it."""
        client, listener = expected.client, expected.listener
        for pause in itertools.chain(PAUSES, itertools.repeat(PAUSES[-1])):
            verdict = self.policing.policy.decide(client, listener.app, listener.port)
            if not verdict.allowed:  # since a reload
                reason = explain(verdict, client, listener.app)
                self._publish_denied(client, listener, expected.ends, verdict.rule, reason)
                return False
            try:
                self.deliverer.deliver(expected.carrier, _app(client), listener, end)
            except BlockingIOError:
                if trio.current_time() > expected.until or not await self._wait(listener, pause):
                    return False
            except OSError:
                return False
            else:
                for kind in verdict.kinds:
                    self._publish(kind, client, listener, expected.ends, rule=verdict.rule)
                return True
        raise AssertionError("the pauses have no end")

    async def _wait(self, listener: Listener, pause: float) -> bool:
        """False: so many wait already. Nobody sees whether their clients do."""
        if self._waiting[listener.id] >= MOST_WAITING:
            return False
        self._waiting[listener.id] += 1
        try:
            await trio.sleep(pause)
        finally:
            self._waiting[listener.id] -= 1
            if not self._waiting[listener.id]:
                del self._waiting[listener.id]
        return True

    def _publish_denied(
        self, client: Party, listener: Listener | None, ends: Ends, rule: str | None, reason: str
    ) -> None:
        self._publish(Kind.DENY, client, listener, ends, rule=rule, reason=reason)

    def _publish(self, kind: Kind, client: Party, listener: Listener | None, ends: Ends, **facts: object) -> None:
        source, (ip, port) = ends
        where: dict[str, object] = {"address": ip, "port": port, "proto": "tcp", "medium": "tcp"}
        where["source"] = source if isinstance(client, Outside) else None
        self.apps.events.publish(kind, _app(client), server=listener and listener.app, **where, **facts)

    def _drop(self, expected: Expected) -> None:
        expected.carrier.close()
        self.deliverer.names.release(expected.ends)


def _app(client: Party) -> App | None:
    return client if isinstance(client, App) else None
