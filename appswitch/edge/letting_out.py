"""TCP connections to the outside for apps of other nodes: what a gateway does (edge/leaving.py asks).

What a node says of its app is judged by our own table and policy, as if the app were here. It goes out by a socket of
this host, never by another gateway, so nothing goes in circles.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial

import trio
from attrs import define

from appswitch.core import route
from appswitch.core.exits import Exits
from appswitch.core.route import Egress, Refuse
from appswitch.edge.apps import Apps
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

    async def leave(self, caller: Caller, said: Leave) -> Announced:
        """Of Peers.handlers. OSError with the errno for the client."""
        client = await self.client_of(caller.node, said.app)
        dest = unpack_ip(said.dest_ip), said.dest_port
        plan = self._judge(client, dest, said.names)
        try:
            self.exits.check(*dest)
            outside = start_egress(plan, dest[0].version)
        except OSError as error:
            self._publish(Kind.REFUSE, client, dest, reason=error.strerror, error=error.errno)
            raise
        self.egress.add(outside, client, dest, self.apps.table.node, plan.names)
        for kind in (Kind.CONNECT, Kind.AUDIT) if plan.verdict.audit else (Kind.CONNECT,):
            self._publish(kind, client, dest, rule=plan.verdict.rule)
        return Announced(self.expected.add(caller.session, partial(self._join, outside), outside.close))

    def _judge(self, client: App, dest: Pair, names: Sequence[str]) -> Egress:
        """OSError when it may not leave."""
        if not self.exits.here:
            raise OSError(errno.ENETUNREACH, "this node is no gateway")
        names = tuple({*names, *self.policing.names_of(dest[0])})
        plan = route.plan_connect(self.apps.table, self.policing.policy, client, *dest, gateway=True, names=names)
        if isinstance(plan, Egress):
            return plan
        if not isinstance(plan, Refuse):
            plan = Refuse(errno.ECONNREFUSED, "that isn't outside")
        kind = Kind.DENY if plan.denied else Kind.REFUSE
        self._publish(kind, client, dest, rule=plan.rule, reason=plan.reason, error=plan.error)
        raise OSError(plan.error, plan.reason)

    async def _join(self, outside: socket.socket, inside: socket.socket) -> None:
        """inside: the connection from the other node, which has come."""
        error = await _outcome(outside, inside)
        if error is None:
            return
        inside.setblocking(False)
        with suppress(OSError):
            inside.send(error.to_bytes(OUTCOME_SIZE, "big"), socket.MSG_NOSIGNAL)
            if not error:
                for each in (inside, outside):
                    tune(each)
                await self.relay.join(inside, outside)

    def _publish(self, kind: Kind, client: App, dest: Pair, **facts: object) -> None:
        where = {"address": dest[0], "port": dest[1], "proto": "tcp", "medium": GATEWAY}
        self.apps.events.publish(kind, client, **where, **facts)


async def _outcome(outside: socket.socket, inside: socket.socket) -> int | None:
    """What the connect to the outside has come to: an errno, or 0; None: nobody waits for it any more."""
    error = None
    async with trio.open_nursery() as nursery:

        async def until_gone() -> None:
            await trio.lowlevel.wait_readable(inside)  # nothing is sent before the outcome is known
            nursery.cancel_scope.cancel()

        nursery.start_soon(until_gone)
        await trio.lowlevel.wait_writable(outside)
        error = outside.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        nursery.cancel_scope.cancel()
    return error
