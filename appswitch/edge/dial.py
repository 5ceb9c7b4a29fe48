"""Making the client's end of a connection: a Unix socket to an instance here, or a TCP socket to the outside."""

from __future__ import annotations

import errno
import itertools
import random
import socket
from collections.abc import Callable

import trio
from attrs import frozen

from appswitch.core.balance import Balancer, by_connections
from appswitch.core.route import EPHEMERAL, Egress, Reach
from appswitch.edge.listeners import ListenerSockets
from appswitch.edge.loads import Loads
from appswitch.model import Address, App, Listener
from appswitch.wire import socknames
from appswitch.wire.socknames import Medium
from appswitch.wire.trap import SNDBUF

# A listener whose queue of SYNs is full lets TCP's client wait; so do we, this long (seconds), tried again after each
# of the pauses, the last one again and again.
PATIENCE = 60.0
PAUSES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05)

# The kernel sees to it that no two names are the same in one namespace: ours are in the host's, with even ports; those
# that a shim binds when it connects by capability are in the app's, with odd ones (shim/capability.c).
OUR_PORTS = EPHEMERAL[::2]

AT_ONCE = 64  # ports that are tried in one go

SO_SNDBUFFORCE = 32


@frozen
class Asked:
    """What a program asked for. dest: where to; family: 4 or 6, of its socket.

    end_for: of a connection that is TCP: the socket that goes to a listener.
    """

    app: App
    dest: tuple[Address, int]
    family: int
    end_for: Callable[[Listener], socket.socket] | None = None


class Dialer:
    """Connects to instances. Keeps the sequence of client ports."""

    def __init__(
        self,
        sockets: ListenerSockets,
        gone: Callable[[Listener], None],
        rng: random.Random,
        balancer: Balancer,
        loads: Loads,
        is_taken: Callable[[tuple[Address, int], tuple[Address, int]], bool] = lambda _source, _dest: False,
    ) -> None:
        """gone: called with a listener that turns out to be closed; is_taken: whether a TCP connection has the ends."""
        self._sockets = sockets
        self._is_taken = is_taken
        self._gone = gone
        self._balancer = balancer
        self._loads = loads
        self._ports = itertools.cycle(OUR_PORTS)
        for _ in range(rng.randrange(len(OUR_PORTS))):
            next(self._ports)

    async def connect(
        self, plan: Reach, again: Callable[[], Reach], asked: Asked, patience: float = PATIENCE
    ) -> tuple[socket.socket, Listener]:
        """A Unix socket connected to the first instance that takes it, and that instance.

        again: plans anew, or raises; asked after every pause, since instances come and go, and clients, too. patience:
        seconds to wait for room. OSError with the errno for the client when no instance takes it: ECONNREFUSED,
        EADDRNOTAVAIL (no port is free to there), ETIMEDOUT (queues stay full).
        """
        pauses = itertools.chain(PAUSES, itertools.repeat(PAUSES[-1]))
        with trio.move_on_after(patience):
            while True:
                try:
                    connected = await self._try_all(plan, asked)
                except ConnectionRefusedError:
                    tried, plan = plan, again()
                    if set(plan.candidates) <= set(tried.candidates):
                        raise
                    continue  # one has come meanwhile
                if connected is not None:
                    return connected
                await trio.sleep(next(pauses))
                plan = again()
        raise OSError(errno.ETIMEDOUT, "the queue of every instance stays full")

    async def _try_all(self, plan: Reach, asked: Asked) -> tuple[socket.socket, Listener] | None:
        """None: some instance lives, but its queue is full."""
        full = False
        loads = await self._loads.now() if by_connections(plan.candidates) else None
        for listener in self._balancer.order(plan.candidates, trio.current_time(), loads):
            client = await self._named_socket(plan, asked, listener.family)
            try:
                client.connect(self._sockets.path(listener.id))
            except KeyError:
                client.close()
            except (ConnectionRefusedError, BlockingIOError) as error:
                client.close()
                self._balancer.failed(listener, trio.current_time())
                if isinstance(error, BlockingIOError):
                    full = True
                elif not self._sockets.alive(listener.id):
                    self._gone(listener)
            else:
                if asked.end_for:  # at once: accept may be faster than we
                    socket.send_fds(client, [b"\0"], [asked.end_for(listener).fileno()])
                client.setblocking(True)
                self._balancer.worked(listener)
                if loads is not None:
                    self._loads.dialled(listener)
                return client, listener
        if full:
            return None
        raise ConnectionRefusedError(errno.ECONNREFUSED, "every instance has gone")

    async def _named_socket(self, plan: Reach, asked: Asked, server_family: int) -> socket.socket:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            raise_sndbuf(client)
            await self._name(client, plan, asked, server_family)
        except BaseException:
            client.close()
            raise
        return client

    async def _name(self, client: socket.socket, plan: Reach, asked: Asked, server_family: int) -> None:
        """Binds the name; the kernel refuses one that is in use, so no two connections have the same two ends."""
        for count in range(1 if plan.port else len(OUR_PORTS)):
            if count % AT_ONCE == AT_ONCE - 1:
                await trio.lowlevel.checkpoint()  # long searches are others' turn, too
            source = plan.source, plan.port or next(self._ports)
            if self._is_taken(source, asked.dest):
                continue
            medium = Medium.TCP_SERVER if asked.end_for else Medium.UNIX
            families = asked.family, server_family
            name = socknames.client_name(self._sockets.salt, source, asked.dest, *families, asked.app.id, medium)
            try:
                client.bind(name)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                return
        raise OSError(errno.EADDRNOTAVAIL, "the client's port is in use to there" if plan.port else "no port is free")


def raise_sndbuf(end: socket.socket) -> None:
    """A Unix socket charges each small write some 700 bytes: with the default a pipelining client soon blocks."""
    try:
        end.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, SNDBUF)
    except PermissionError:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SNDBUF)


def start_egress(plan: Egress, family: int) -> socket.socket:
    """A TCP socket of the host's namespace, its connect under way. OSError when it fails at once."""
    kind = socket.AF_INET6 if family == 6 else socket.AF_INET
    text = f"::ffff:{plan.ip}" if family == 6 and plan.ip.version == 4 else str(plan.ip)
    client = socket.socket(kind, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        client.connect((text, plan.port))
    except BlockingIOError:
        pass
    except OSError:
        client.close()
        raise
    return client
