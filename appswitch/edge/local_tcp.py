"""TCP between apps of one host (`spawn --tcp`), for programs that depend on what a Unix socket can't do.

Both ends come from a process that makes them where nobody else is (edge/sealed.py). The client gets one, the other is
delivered (edge/deliver.py).
"""

from __future__ import annotations

from contextlib import ExitStack

from attrs import frozen

from appswitch.core.route import Reach
from appswitch.edge.deliver import Deliverer
from appswitch.edge.dial import Asked, Dial, Dialled
from appswitch.edge.sealed import Sealed
from appswitch.host import sealed
from appswitch.model import Listener


def _kind(listener: Listener) -> int:
    """Of the socket that accept gives (sealed.FAMILIES). An address of its own makes it IPV6_V6ONLY (inet6_bind)."""
    v6only = listener.v6only or (listener.ip.version == 6 and not listener.ip.is_unspecified)
    return sealed.V6ONLY if listener.family == 6 and v6only else listener.family


@frozen
class LocalTcp:
    """The way to an instance here when it is to be TCP. OSError, too, when no connection can be made."""

    deliverer: Deliverer
    sealed: Sealed

    def begin(self, asked: Asked, closing: ExitStack) -> Dial:
        """As of Way. One pair serves until some instance takes it."""
        pairs: dict[int, sealed.Pair] = {}

        async def dial(plan: Reach, listener: Listener) -> Dialled:
            kind = _kind(listener)
            if kind not in pairs:
                pairs[kind] = await self.sealed.pair(asked.family, kind)
                for each in pairs[kind]:
                    closing.callback(each.close)
            client, server = pairs[kind]
            with await self.deliverer.address((plan.source, plan.port), asked, listener) as carrier:
                name = self.deliverer.deliver(carrier, asked.app, listener, server).of_client()
            self.deliverer.names.add(client, name)
            return Dialled(client.dup(), listener, name)

        return dial
