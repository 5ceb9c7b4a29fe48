"""A connection on this host as it mostly is: a Unix socket, although the app asked for TCP."""

from __future__ import annotations

from contextlib import ExitStack

from attrs import frozen

from appswitch.core.route import Reach
from appswitch.edge.dial import Asked, Dial, Dialled
from appswitch.edge.named import NamedSockets
from appswitch.model import Listener
from appswitch.wire.socknames import Medium


@frozen
class LocalUnix:
    """The way to an instance here."""

    named: NamedSockets

    def begin(self, asked: Asked, _closing: ExitStack) -> Dial:
        """As of Way."""

        async def dial(plan: Reach, listener: Listener) -> Dialled:
            client = await self.named.make((plan.source, plan.port), asked, listener.family, Medium.UNIX)
            try:
                self.named.connect(client, listener)
                client.setblocking(True)
            except BaseException:
                client.close()
                raise
            return Dialled(client, listener)

        return dial
