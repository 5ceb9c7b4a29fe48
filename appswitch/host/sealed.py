"""Both ends of TCP connections, made where nobody else is: for `spawn --tcp` on one host.

A socket stays in the network namespace that it was made in (socket(2)), and who holds it reaches into that namespace:
connect(AF_UNSPEC) frees it to connect elsewhere. So programs get none of the host's. This is a process of its own, in a
namespace of its own where every address is local and nothing leads out; it has nothing to lose, for it lives as long
as its trap handler, and keeps nothing that it has made.

One request, a SOCK_SEQPACKET message of two bytes: the IP versions, 4 or 6 (or V6ONLY), of the client's socket and the
server's; one answer: the same two bytes and the two sockets, or an errno of four bytes. A second message says that it
has closed its own descriptors of them: a program that closes a socket is to be the last one that has it. First it says
that it is ready, and gives a socket of sock_diag(7). Where the kernel forbids namespaces, it stays in the host's: apps
are there, too, then.
"""

from __future__ import annotations

import errno
import os
import random
import socket
import sys
from contextlib import suppress

from appswitch.host import namespace, rtnetlink

READY, CLOSED = b"ready", b"closed"
REQUEST = 2  # bytes
PATIENCE = 1.0  # seconds
V6ONLY = 7  # a version 6 listener with this option, which accepted sockets inherit
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6, V6ONLY: socket.AF_INET6}
BACKLOG = 4096

Pair = tuple[socket.socket, socket.socket]


class Maker:
    """Makes pairs of connected sockets in the namespace that it is in."""

    def __init__(self) -> None:
        self._listeners: dict[int, socket.socket] = {}
        for version in FAMILIES:
            with suppress(OSError):  # a kernel without IPv6: nobody asks for it either
                self._listeners[version] = _listen(version)

    def make(self, client_version: int, server_version: int) -> Pair:
        """The client's end and the server's. OSError when there is no room."""
        try:
            listener = self._listeners[server_version]
            client = socket.socket(FAMILIES[client_version])
        except KeyError:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT)) from None
        try:
            return client, _meet(client, listener, client_version, server_version)
        except OSError:
            client.close()
            raise


def _listen(version: int) -> socket.socket:
    listener = socket.socket(FAMILIES[version])
    if version != 4:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, version == V6ONLY)
    listener.bind(("", 0))
    listener.listen(BACKLOG)
    listener.settimeout(PATIENCE)
    return listener


def _meet(client: socket.socket, listener: socket.socket, client_version: int, server_version: int) -> socket.socket:
    # A different address each time: there are never too few ports, whatever is in TIME_WAIT.
    dest = f"127.{random.randrange(256)}.{random.randrange(256)}.{random.randrange(1, 255)}"
    if client_version != 4:
        dest = "::ffff:" + dest if server_version == 4 else "::1"
    client.settimeout(PATIENCE)
    client.connect((dest, listener.getsockname()[1]))
    client.setblocking(True)
    while True:  # a program that has a socket of this namespace may have connected, too
        server, peer = listener.accept()
        if _plain(peer) == _plain(client.getsockname()):
            server.setblocking(True)
            return server
        server.close()


def _plain(name: tuple[str, int]) -> tuple[str, int]:
    return name[0].removeprefix("::ffff:"), name[1]


def serve(channel: socket.socket) -> None:
    """Answers requests until the trap handler has gone."""
    with suppress(namespace.NamespaceForbidden):
        namespace.enter_new_namespace()
        rtnetlink.make_everything_local([])
    with namespace.open_diag_socket() as diag:
        socket.send_fds(channel, [READY], [diag.fileno()])
    maker = Maker()
    while len(request := channel.recv(REQUEST)) == REQUEST:
        try:
            pair = maker.make(request[0], request[1])
        except OSError as error:
            channel.send((error.errno or errno.ETIMEDOUT).to_bytes(4, "little"))
            continue
        socket.send_fds(channel, [request], [each.fileno() for each in pair])
        for each in pair:
            each.close()
        channel.send(CLOSED)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
