"""TCP sockets made where nobody else is: both ends of a connection for `spawn --tcp` on one host, and the ends of those
that lead out by a gateway (host/held.py).

A socket stays in the network namespace that it was made in (socket(2)), and who holds it reaches into that namespace:
connect(AF_UNSPEC) frees it to connect elsewhere. So programs get none of the host's. This is a process of its own, in a
namespace of its own where every address is local and nothing leads out; it has nothing to lose, for it lives as long
as its trap handler, and keeps nothing that it has made.

One request, a SOCK_SEQPACKET message: an `Op` and its arguments; one answer: what it says and the sockets that it
makes, or an errno of four bytes. Where there are sockets, a second message says that it has closed its own descriptors
of them: a program that closes a socket is to be the last one that has it. First it says that it is ready, and gives a
socket of sock_diag(7). Where the kernel forbids namespaces, it stays in the host's: apps are there, too, then; but
nothing is held there.
"""

from __future__ import annotations

import errno
import os
import random
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from enum import IntEnum

from appswitch.host import namespace, rtnetlink
from appswitch.host.held import Held, Holder

READY, CLOSED = b"ready", b"closed"
MOST_REQUEST = 64  # bytes
ERROR_SIZE = 4  # no other answer has it
PATIENCE = 1.0  # seconds
V6ONLY = 7  # a version 6 listener with this option, which accepted sockets inherit
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6, V6ONLY: socket.AF_INET6}
BACKLOG = 4096

Pair = tuple[socket.socket, socket.socket]


class Op(IntEnum):
    """What a request begins with: a byte."""

    PAIR = 1
    """The client's version, the server's (a byte each: FAMILIES) -> their sockets."""
    HOLD = 2
    """The client's version -> a Held, its socket."""
    MEET = 3
    """A Held -> the other end's socket."""
    FAIL = 4
    """A Held, an errno (two bytes)."""


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
    holder = None
    with suppress(namespace.NamespaceForbidden):
        namespace.enter_new_namespace()
        rtnetlink.make_everything_local([])
        with suppress(PermissionError):
            holder = Holder()
    with namespace.open_diag_socket() as diag:
        socket.send_fds(channel, [READY], [diag.fileno()])
    maker = Maker()
    while request := channel.recv(MOST_REQUEST):
        try:
            said, made = _answer(maker, holder, request)
        except OSError as error:
            channel.send((error.errno or errno.ETIMEDOUT).to_bytes(ERROR_SIZE, "little"))
            continue
        socket.send_fds(channel, [said], [each.fileno() for each in made])
        for each in made:
            each.close()
        if made:
            channel.send(CLOSED)


def _answer(maker: Maker, holder: Holder | None, request: bytes) -> tuple[bytes, Sequence[socket.socket]]:
    """What is said, and the sockets that go along. OSError."""
    op, rest = request[0], request[1:]
    try:
        if op == Op.PAIR:
            return request, maker.make(*rest)
        if holder is None:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        if op == Op.HOLD:
            held, client = holder.hold(FAMILIES[rest[0]])
            return held.pack(), [client]
        if op == Op.MEET:
            return request, [holder.meet(Held.unpack(rest))]
        if op == Op.FAIL:
            holder.fail(Held.unpack(rest[:-2]), int.from_bytes(rest[-2:], "little"))
            return request, []
    except (TypeError, LookupError, ValueError):
        pass
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
