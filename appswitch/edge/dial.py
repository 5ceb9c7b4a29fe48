"""Connecting a client to an instance: which one is tried when, and what comes next when it doesn't take it.

Where an instance is says how it is reached (`Way`): one here by a Unix socket (edge/local_unix.py), or by TCP where one
of the two wants that (edge/local_tcp.py); one on another node by TCP between the hosts (edge/remote.py); one
outside as edge/external_way.py says.
"""

from __future__ import annotations

import errno
import itertools
import socket
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from typing import Protocol

import structlog
import trio
from attrs import define, field, frozen

from appswitch.core.balance import Balancer, by_connections
from appswitch.core.route import Egress, Reach
from appswitch.core.service_table import ServiceTable
from appswitch.edge.loads import Loads
from appswitch.edge.peer_channel import UnreachableError
from appswitch.edge.tcp_names import Name
from appswitch.host.confined import confine_client
from appswitch.model import Address, App, Listener

# A listener whose queue of SYNs is full lets TCP's client wait; so do we, this long (seconds), tried again after each
# of the pauses, the last one again and again.
PATIENCE = 60.0
PAUSES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05)

UNREACHABLE_AFTER = 3.0  # seconds without an answer of any node that has an instance; so long ARP tries, too (arp(7))

log = structlog.get_logger()


@frozen
class Asked:
    """What a client asked for. dest: where to; family: 4 or 6, of its socket; nonblocking: of its connect.

    app: None: one from outside, whose connection is there already: `accepted`.
    """

    app: App | None
    dest: tuple[Address, int]
    family: int
    nonblocking: bool = False
    accepted: socket.socket | None = None


@frozen
class Dialled:
    """The client's end of a connection. name: of one that is TCP; a Unix socket has its name itself.

    under_way: what becomes of it is told by others.
    """

    client: socket.socket
    listener: Listener
    name: Name | None = None
    under_way: bool = False


Dial = Callable[[Reach, Listener], Awaitable[Dialled]]
"""Connects to one of a plan's instances.

ConnectionRefusedError: it doesn't take the connection; BlockingIOError: it has no room now; UnreachableError: its node
doesn't answer; any other OSError: the client's fault (EADDRNOTAVAIL: its port is in use to there) or ours.
"""


class Way(Protocol):
    """How instances of a kind are reached."""

    def begin(self, asked: Asked, closing: ExitStack) -> Dial:
        """For one client, who may try several, each of them several times; closing: at its end."""


@define
class Dialer:
    """Connects to instances. remote: None: on a host that is in no cluster; outside: to external servers."""

    table: ServiceTable
    balancer: Balancer
    loads: Loads
    unix: Way
    tcp: Way
    remote: Way | None = None
    outside: Way | None = None
    _silent: set[str] = field(factory=set)
    """Nodes that didn't answer when they were tried last."""

    async def connect(
        self, plan: Reach, again: Callable[[], Reach], asked: Asked, patience: float = PATIENCE
    ) -> Dialled:
        """Connected to the first instance that takes it; TCP to another host may still be on its way there.

        again: plans anew, or raises; asked after every pause, since instances come and go, and clients, too. patience:
        seconds to wait for room. OSError with the errno for the client when no instance takes it: ECONNREFUSED,
        EHOSTUNREACH (no node answers), EADDRNOTAVAIL (no port is free to there), ETIMEDOUT (queues stay full).
        """
        with ExitStack() as closing:
            attempt = _Attempt(self, asked, closing)
            refused = None
            if attempt.is_quick(plan):  # most are: a scope with a deadline takes a tenth of our time for them
                tried = await self._try_all(plan, attempt)
                if isinstance(tried, Dialled):
                    return tried
                refused = tried
            with trio.move_on_after(patience):
                return await self._insist(plan, again, attempt, refused)
        raise OSError(errno.ETIMEDOUT, "no instance has taken it in time")

    async def _insist(
        self, plan: Reach, again: Callable[[], Reach], attempt: _Attempt, refused: OSError | None
    ) -> Dialled:
        """As `connect`. refused: what the plan's instances have said, if they have been tried already."""
        pauses = itertools.chain(PAUSES, itertools.repeat(PAUSES[-1]))
        silent_until = trio.current_time() + (0 if attempt.asked.nonblocking else UNREACHABLE_AFTER)
        while True:
            outcome = refused or await self._try_all(plan, attempt)
            if isinstance(outcome, Dialled):
                return outcome
            known, waits, refused = plan, isinstance(outcome, BlockingIOError), None
            if isinstance(outcome, UnreachableError):
                waits = trio.current_time() < silent_until
            if waits:
                await trio.sleep(next(pauses))
            plan = again()
            if not waits and set(plan.candidates) <= set(known.candidates):
                raise outcome  # else one has come meanwhile

    async def _try_all(self, plan: Reach, attempt: _Attempt) -> Dialled | OSError:
        """An error: what they have said. BlockingIOError: some instance lives, but its queue is full.

        UnreachableError: no node has said anything.
        """
        full, refused = False, ""
        silent: set[str] = set()
        loads = await self.loads.now() if by_connections(plan.candidates) else None
        for listener in self.balancer.order(plan.candidates, trio.current_time(), loads):
            if listener.app.node in silent:
                continue
            try:
                dialled = await attempt.dial(plan, listener)
            except UnreachableError as error:
                silent.add(listener.app.node)
                self._put_aside(listener.app.node, error)
            except BlockingIOError:
                full = True
                self.balancer.failed(listener, trio.current_time())
            except ConnectionRefusedError as error:
                is_here = self.table.is_local(listener.app) and listener.outside is None
                refused = "every instance has gone" if is_here else error.strerror or "a node refuses"
                self.balancer.failed(listener, trio.current_time())
            else:
                self.balancer.worked(listener)
                self.balancer.node_worked(listener.app.node)
                self._silent.discard(listener.app.node)
                if loads is not None:
                    self.loads.dialled(listener)
                return dialled
        if full:
            return BlockingIOError(errno.EAGAIN, "the queue of every instance is full")
        if refused or not silent:
            return ConnectionRefusedError(errno.ECONNREFUSED, refused)
        return UnreachableError(errno.EHOSTUNREACH, "no node with an instance answers")

    def _put_aside(self, node: str, error: UnreachableError) -> None:
        self.balancer.node_failed(node, trio.current_time())
        if node not in self._silent:  # it may be tried again and again
            log.warning("a node doesn't answer", peer=node, reason=error.strerror)
            self._silent.add(node)


class _Attempt:
    """A client's, with the ways that it has begun."""

    def __init__(self, dialer: Dialer, asked: Asked, closing: ExitStack) -> None:
        self._dialer = dialer
        self.asked = asked
        self._closing = closing
        self._begun: dict[int, Dial] = {}

    async def dial(self, plan: Reach, listener: Listener) -> Dialled:
        way = self._way_to(listener)
        if way is None:
            raise UnreachableError(errno.ENETUNREACH, "this host is in no cluster")
        if id(way) not in self._begun:
            self._begun[id(way)] = way.begin(self.asked, self._closing)
        return await self._begun[id(way)](plan, listener)

    def is_quick(self, plan: Reach) -> bool:
        """Whether the plan's instances take the connection or don't, without waiting for anybody."""
        return all(self._way_to(each) is self._dialer.unix for each in plan.candidates)

    def _way_to(self, listener: Listener) -> Way | None:
        if listener.outside is not None:
            return self._dialer.outside
        if not self._dialer.table.is_local(listener.app):
            return self._dialer.remote
        client = self.asked.app
        return self._dialer.tcp if listener.app.tcp or client is None or client.tcp else self._dialer.unix


def start_egress(plan: Egress, family: int, *, for_program: bool = False) -> socket.socket:
    """A TCP socket of the host's namespace, its connect under way. OSError when it fails at once.

    for_program: it is to be good for nothing else (host/confined.py).
    """
    kind = socket.AF_INET6 if family == 6 else socket.AF_INET
    text = f"::ffff:{plan.ip}" if family == 6 and plan.ip.version == 4 else str(plan.ip)
    client = socket.socket(kind, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        with suppress(BlockingIOError):
            client.connect((text, plan.port))
        if for_program:
            confine_client(client, (text, plan.port))
    except OSError:
        client.close()
        raise
    return client
