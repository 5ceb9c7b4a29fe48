"""The ways of a client from outside to instances that can't be handed its socket: the relay (edge/relay.py) joins its
connection with one of ours.

To an instance on another node that is a connection between the nodes, announced with the client's own address, so that
the program sees it (edge/remote.py). A program that wants a PROXY protocol head can't have the client's socket even on
this host, for nobody can put something before what the client sends: it gets a Unix socket, named as any client's.
"""

from __future__ import annotations

from contextlib import ExitStack

from attrs import frozen

from appswitch.core.route import Reach
from appswitch.edge.dial import Asked, Dial, Dialled, Way
from appswitch.edge.relay import Relay
from appswitch.model import Listener
from appswitch.wire.proxy import encode_head


@frozen
class Relayed:
    """The client's connection goes on by one that `way` makes. idle: seconds, as of Relay.join."""

    way: Way
    relay: Relay
    idle: float | None = None

    def begin(self, asked: Asked, closing: ExitStack) -> Dial:
        """As of Way."""
        accepted = asked.accepted
        assert accepted is not None
        begun = self.way.begin(asked, closing)

        async def dial(plan: Reach, listener: Listener) -> Dialled:
            dialled = await begun(plan, listener)
            head = encode_head((plan.source, plan.port), asked.dest) if wants_head(listener) else b""
            await self.relay.join(accepted, dialled.client, head=head, idle=self.idle)
            return dialled

        return dial


def wants_head(listener: Listener) -> bool:
    """Whether its program wants to be told of clients from outside by PROXY protocol."""
    return any(each.port == listener.port and each.proxy for each in listener.app.exposes)
