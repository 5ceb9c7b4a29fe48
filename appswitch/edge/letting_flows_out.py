"""Datagrams to the outside for apps of other nodes: what a gateway does when a flow is announced (edge/flows.py).

As for TCP (edge/letting_out.py), what a node says of its app is judged by our own table and policy.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable

from attrs import define

from appswitch.core import datagrams
from appswitch.core.datagrams import Deny
from appswitch.core.exits import Exits
from appswitch.core.policy import explain
from appswitch.core.route import Egress, Refuse
from appswitch.edge.apps import Apps
from appswitch.edge.flows import Flows
from appswitch.edge.peer_channel import Caller
from appswitch.edge.policing import Policing
from appswitch.model import GATEWAY, Address, App, Kind
from appswitch.wire.addresses import unpack_ip
from appswitch.wire.peer import FlowOpened, OpenOutside

Pair = tuple[Address, int]


@define
class LettingFlowsOut:
    """client_of: finds an app by its node and its number there. OSError."""

    apps: Apps
    policing: Policing
    exits: Exits
    flows: Flows
    client_of: Callable[[str, int], Awaitable[App]]

    async def answer(self, caller: Caller, said: OpenOutside) -> FlowOpened:
        """Of Peers.handlers. OSError with the errno for the client."""
        if not self.exits.here:
            raise OSError(errno.ENETUNREACH, "this node is no gateway")
        client = await self.client_of(caller.node, said.client)
        source = unpack_ip(said.source_ip), said.source_port
        dest = unpack_ip(said.dest_ip), said.dest_port
        plan = self._judge(client, source, dest, said.names)
        try:
            self.exits.check(*dest)
            await self.flows.let_out(client, source, plan.server, dest[1], said.flow)
        except OSError as error:
            self._publish(Kind.REFUSE, client, dest, reason=error.strerror, error=error.errno)
            raise
        for kind in plan.verdict.kinds:
            self._publish(kind, client, dest, rule=plan.verdict.rule)
        return FlowOpened()

    def _judge(self, client: App, source: Pair, dest: Pair, names: tuple[str, ...]) -> Egress:
        """OSError when it may not leave."""
        names = tuple({*names, *self.policing.names_of(dest[0])})
        plan = datagrams.plan_datagrams(
            self.apps.table, self.policing.policy, client, *dest, serving=(), asker=None, turn=0, gateway=True,
            bound=source, names=names,
        )  # fmt: skip
        if isinstance(plan, Egress) and not source[0].is_unspecified:
            return plan
        if isinstance(plan, Deny):
            reason, rule = explain(plan.verdict, client, plan.server), plan.verdict.rule
            self._publish(Kind.DENY, client, dest, rule=rule, reason=reason, error=errno.ECONNREFUSED)
            raise OSError(errno.ECONNREFUSED, reason)
        if not isinstance(plan, Refuse):
            plan = Refuse(errno.ECONNREFUSED, "that isn't outside")
        self._publish(Kind.REFUSE, client, dest, reason=plan.reason, error=plan.error)
        raise OSError(plan.error, plan.reason)

    def _publish(self, kind: Kind, client: App, dest: Pair, **facts: object) -> None:
        where = {"address": dest[0], "port": dest[1], "proto": "udp", "medium": GATEWAY}
        self.apps.events.publish(kind, client, **where, **facts)
