"""The way to a backend of an external server: directly where this host is a gateway, else by one.

A gateway hands the program a socket of its host that is connected to the backend; what the program sees of it is a name
(edge/tcp_names.py): its own virtual IP, and the server's. On another node it is as for what leaves by a gateway
(edge/leaving.py), which chooses the backend.
"""

from __future__ import annotations

import errno
from contextlib import ExitStack

from attrs import frozen

from appswitch.core.exits import Exits
from appswitch.core.policy import LET_OUT
from appswitch.core.route import Egress, Reach
from appswitch.edge.backends import Backends, backend_of
from appswitch.edge.dial import Asked, Dial, Dialled
from appswitch.edge.leaving import Leaving
from appswitch.edge.named import NamedSockets, Pair, no_port
from appswitch.edge.tcp_names import Name, TcpNames
from appswitch.host.confined import confine_client
from appswitch.model import Listener
from appswitch.wire.socknames import Medium


@frozen
class ExternalWay:
    """Connects."""

    exits: Exits
    leaving: Leaving
    backends: Backends
    named: NamedSockets
    names: TcpNames

    def begin(self, asked: Asked, _closing: ExitStack) -> Dial:
        """As of Way."""

        async def dial(plan: Reach, listener: Listener) -> Dialled:
            source = plan.source, plan.port
            assert asked.app is not None  # clients from outside don't get here
            if self.exits.here:
                return await self._directly(plan, asked, source, listener)
            gateways = tuple(self.exits.others())
            if not gateways:
                raise OSError(errno.ENETUNREACH, "no gateway is there")
            verdict = next((each.verdict for each in plan.judged if each.listener == listener), LET_OUT)
            way_out = Egress(*asked.dest, gateways, verdict=verdict)
            client, name = await self.leaving.connect(asked.app, way_out, asked, source, listener)
            return Dialled(client, listener, name, under_way=True)

        return dial

    async def _directly(self, plan: Reach, asked: Asked, source: Pair, listener: Listener) -> Dialled:
        backend, healths = backend_of(listener), self.backends.healths
        others = (each for each in plan.candidates if each is not listener)
        if healths.is_down(backend) and any(
            each.outside is None or not healths.is_down(backend_of(each)) for each in others
        ):
            raise ConnectionRefusedError(errno.ECONNREFUSED, healths.of(backend).reason)
        end = next(self.named.sources(source, asked), None)
        if end is None:
            raise no_port(source)
        client = await self.backends.connect(backend, asked.family)
        try:
            confine_client(client, client.getpeername()[:2])
        except OSError:
            client.close()
            raise ConnectionRefusedError(errno.ECONNREFUSED, "the backend has closed the connection") from None
        name = Name(self.named.name(end, asked, listener.family, Medium.TCP_CLIENT), asked.app, listener)
        self.names.add(client, name)
        return Dialled(client, listener, name)
