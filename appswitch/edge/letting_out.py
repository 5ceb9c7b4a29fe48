"""TCP connections to the outside for apps of other nodes: what a gateway does (edge/leaving.py asks).

What a node says of its app is judged by our own table and policy, as if the app were here. It goes out by a socket of
this host, never by another gateway, so nothing goes in circles. What is for an external server goes to a backend of it.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

import trio
from attrs import define, evolve

from appswitch.core import route
from appswitch.core.exits import Exits
from appswitch.core.route import Egress, Reach, Refuse
from appswitch.edge.apps import Apps
from appswitch.edge.backends import Backends
from appswitch.edge.dial import start_egress
from appswitch.edge.egress import EgressSockets
from appswitch.edge.expected import ExpectedConnections
from appswitch.edge.leaving import OUTCOME_SIZE, tune
from appswitch.edge.peer_channel import Caller
from appswitch.edge.policing import Policing
from appswitch.edge.relay import Relay
from appswitch.model import GATEWAY, Address, App, Kind
from appswitch.wire.addresses import unpack_ip
from appswitch.wire.peer import Announced, Leave

Value = TypeVar("Value")

Pair = tuple[Address, int]


@define
class LettingOut:
    """client_of: finds an app by its node and its number there. OSError."""

    apps: Apps
    policing: Policing
    exits: Exits
    expected: ExpectedConnections
    egress: EgressSockets
    relay: Relay
    client_of: Callable[[str, int], Awaitable[App]]
    backends: Backends

    async def leave(self, caller: Caller, said: Leave) -> Announced:
        """Of Peers.handlers. OSError with the errno for the client."""
        client = await self.client_of(caller.node, said.app)
        dest = unpack_ip(said.dest_ip), said.dest_port
        plan = self._judge(client, dest, said)
        if isinstance(plan, Reach):
            take = partial(self._join_backend, client, dest, plan)
            return Announced(self.expected.add(caller.session, take, lambda: None, client.id))
        try:
            self.exits.check(*dest)
            outside = start_egress(plan, dest[0].version)
        except OSError as error:
            self._publish(Kind.REFUSE, client, dest, reason=error.strerror, error=error.errno)
            raise
        self.egress.add(outside, client, dest, self.apps.table.node, plan.names)
        for kind in plan.verdict.kinds:
            self._publish(kind, client, dest, rule=plan.verdict.rule)
        return Announced(self.expected.add(caller.session, partial(self._join, outside), outside.close, client.id))

    def _judge(self, client: App, dest: Pair, said: Leave) -> Egress | Reach:
        """Reach: to backends of an external server. OSError when it may not leave."""
        if not self.exits.here:
            raise OSError(errno.ENETUNREACH, "this node is no gateway")
        names = tuple({*said.names, *self.policing.names_of(dest[0])})
        plan = route.plan_connect(self.apps.table, self.policing.policy, client, *dest, gateway=True, names=names)
        if isinstance(plan, Egress) and not said.external:
            return plan
        if isinstance(plan, Reach) and said.external:
            backends = tuple(each for each in plan.candidates if each.outside is not None)
            if backends:
                return evolve(plan, candidates=backends)
        if said.external and not (isinstance(plan, Refuse) and plan.denied):
            raise OSError(errno.EAGAIN, "that external server isn't known there")  # perhaps not yet
        if not isinstance(plan, Refuse):
            plan = Refuse(errno.ECONNREFUSED, "that isn't outside")
        kind = Kind.DENY if plan.denied else Kind.REFUSE
        self._publish(kind, client, dest, rule=plan.rule, reason=plan.reason, error=plan.error)
        raise OSError(plan.error, plan.reason)

    async def _join(self, outside: socket.socket, inside: socket.socket) -> None:
        """inside: the connection from the other node, which has come."""
        error = await unless_gone(inside, _outcome(outside))
        if error is not None:
            await self._tell(error, outside, inside)

    async def _join_backend(self, client: App, dest: Pair, plan: Reach, inside: socket.socket) -> None:
        """The same, to whichever backend takes it."""
        try:
            connected = await unless_gone(inside, self.backends.connect_any(plan.candidates, dest[0].version))
        except OSError as error:
            server = plan.candidates[0].app
            self._publish(Kind.REFUSE, client, dest, server=server, reason=error.strerror, error=error.errno)
            await self._tell(error.errno or errno.ECONNREFUSED, None, inside)
            return
        if connected is not None:
            listener, outside = connected
            self.egress.add(outside, client, dest, self.apps.table.node, listener=listener)
            verdict = self.policing.policy.decide(client, listener.app, listener.port)
            for kind in verdict.kinds:
                self._publish(kind, client, dest, server=listener.app, rule=verdict.rule)
            with outside:
                await self._tell(0, outside, inside)

    async def _tell(self, error: int, outside: socket.socket | None, inside: socket.socket) -> None:
        """What has come of it; and joins the two, if all is well."""
        inside.setblocking(False)
        with suppress(OSError):
            inside.send(error.to_bytes(OUTCOME_SIZE, "big"), socket.MSG_NOSIGNAL)
            if not error and outside is not None:
                for each in (inside, outside):
                    tune(each)
                await self.relay.join(inside, outside)

    def _publish(self, kind: Kind, client: App, dest: Pair, **facts: object) -> None:
        where = {"address": dest[0], "port": dest[1], "proto": "tcp", "medium": GATEWAY}
        self.apps.events.publish(kind, client, **where, **facts)


async def _outcome(outside: socket.socket) -> int:
    """What the connect to the outside has come to: an errno, or 0."""
    await trio.lowlevel.wait_writable(outside)
    return outside.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


async def unless_gone(inside: socket.socket, work: Awaitable[Value]) -> Value | None:
    """What the work comes to; None: nobody waits for it any more. `inside` is silent until it knows."""
    value: Value | None = None
    error: OSError | None = None
    async with trio.open_nursery() as nursery:

        async def until_gone() -> None:
            await trio.lowlevel.wait_readable(inside)
            nursery.cancel_scope.cancel()

        nursery.start_soon(until_gone)
        try:
            value = await work
        except OSError as failed:
            error = failed
        nursery.cancel_scope.cancel()
    if error is not None:
        raise error
    return value
