"""A TCP connection on its way to its server: through the one queue that the program accepts from (DESIGN 3.3).

The trap handler connects to the app's Unix listener, by a name that says who the client is and that this is a delivery,
and sends the TCP socket through that connection at once; accept of the shim puts it in the Unix socket's place
(shim/tcp.c). So poll and epoll just work, whatever worker takes it. Who has made the TCP connection doesn't matter
here: this host's own (edge/local_tcp.py), another host's trap handler, a gateway.
"""

from __future__ import annotations

import socket

from attrs import frozen

from appswitch.edge.dial import Asked
from appswitch.edge.named import NamedSockets, Pair
from appswitch.edge.tcp_names import Name, TcpNames
from appswitch.model import App, Listener
from appswitch.wire.socknames import Medium


@frozen
class Deliverer:
    """Delivers, and keeps the names."""

    named: NamedSockets
    names: TcpNames

    async def address(self, source: Pair, asked: Asked, listener: Listener) -> socket.socket:
        """What a delivery goes by; nobody else has this source to there while it is open. OSError EADDRNOTAVAIL."""
        return await self.named.make(source, asked, listener.family, Medium.TCP_SERVER)

    def deliver(self, carrier: socket.socket, client: App | None, listener: Listener, end: socket.socket) -> Name:
        """Gives `end` to an instance; it stays the caller's to close, as the carrier does.

        ConnectionRefusedError: the instance doesn't take it; BlockingIOError: it has no room now.
        """
        self.named.connect(carrier, listener)
        socket.send_fds(carrier, [b"\0"], [end.fileno()])  # at once: accept may be faster than we
        name = Name(carrier.getsockname(), client, listener)
        self.names.add(end, name)
        return name
