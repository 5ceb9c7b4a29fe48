"""A TCP connection on its way to its server: through the one queue that the program accepts from (DESIGN 3.3).

The trap handler connects to the app's Unix listener, by a name that says who the client is and that this is a delivery,
and sends the TCP socket through that connection at once; accept of the shim puts it in the Unix socket's place
(shim/tcp.c). So poll and epoll just work, whatever worker takes it. Who has made the TCP connection doesn't matter
here: this host's own (edge/local_tcp.py), another host's trap handler, a gateway.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from attrs import define, evolve

from appswitch.core.route import Reach
from appswitch.edge.dial import Asked, Dialer
from appswitch.edge.tcp_names import Name, TcpNames
from appswitch.model import Listener


@define
class Deliverer:
    """Delivers, and keeps the names."""

    dialer: Dialer
    names: TcpNames

    async def deliver(
        self,
        plan: Reach,
        again: Callable[[], Reach],
        asked: Asked,
        end_for: Callable[[Listener], socket.socket],
        patience: float,
    ) -> Name:
        """Gives the server's end of a connection to the first instance that takes it.

        plan, again, OSError: as of Dialer.connect; end_for: the socket that an instance gets; it stays the caller's to
        close.
        """
        carrier, listener = await self.dialer.connect(plan, again, evolve(asked, end_for=end_for), patience)
        with carrier:
            name = Name(carrier.getsockname(), asked.app, listener)
        self.names.add(end_for(listener), name)
        return name
