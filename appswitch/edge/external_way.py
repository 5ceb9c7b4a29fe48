"""The way to a backend of an external server: directly where this host is a gateway, else by one.

A gateway hands the program a socket of its host that is connected to the backend; what the program sees of it is a name
(edge/tcp_names.py): its own virtual IP, and the server's. On another node it is as for what leaves by a gateway
(edge/leaving.py), which chooses the backend.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from contextlib import ExitStack

from attrs import frozen

from appswitch.core.exits import Exits
from appswitch.core.route import Reach
from appswitch.edge.backends import Backends, backend_of
from appswitch.edge.dial import Asked, Dial, Dialled
from appswitch.edge.named import NamedSockets, Pair, no_port
from appswitch.edge.tcp_names import Name, TcpNames
from appswitch.model import Listener
from appswitch.wire.socknames import Medium

ByGateway = Callable[[Asked, Pair, Listener], Awaitable[Dialled]]
"""Connects by one, from this source. OSError."""


@frozen
class ExternalWay:
    """by_gateway: None: this host is in no cluster."""

    exits: Exits
    backends: Backends
    named: NamedSockets
    names: TcpNames
    by_gateway: ByGateway | None = None

    def begin(self, asked: Asked, _closing: ExitStack) -> Dial:
        """As of Way."""

        async def dial(plan: Reach, listener: Listener) -> Dialled:
            source = plan.source, plan.port
            if self.exits.here:
                return await self._directly(plan, asked, source, listener)
            if self.by_gateway is None or not self.exits.others():
                raise OSError(errno.ENETUNREACH, "no gateway is there")
            return await self.by_gateway(asked, source, listener)

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
        name = Name(self.named.name(end, asked, listener.family, Medium.TCP_CLIENT), asked.app, listener)
        self.names.add(client, name)
        return Dialled(client, listener, name)
