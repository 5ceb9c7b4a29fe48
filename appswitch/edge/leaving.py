"""TCP connections of this host's apps to the outside, by a gateway: another node (edge/letting_out.py).

The program gets its socket at once, and its connect goes on (host/held.py) while we look for a gateway that takes it,
and have that one connect. Then what the program waits for, or finds in SO_ERROR, is what the gateway's connect came to.
Until then a gateway that doesn't answer, or that ends, costs time only: the next one is tried. From then on the relay
(edge/relay.py) passes on what comes; it outlives us.

      program's socket  <-kernel->  its other end  <-relay->  TCP to the gateway  <-relay there->  the outside

The program's socket is of a namespace where nobody is, so there is no way from it to this host or any other.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Awaitable, Callable

import structlog
import trio
from attrs import define

from appswitch.core.exits import NO_WAY, Exits
from appswitch.core.route import Egress
from appswitch.edge.dial import UNREACHABLE_AFTER, Asked
from appswitch.edge.events import Events
from appswitch.edge.named import NamedSockets, Pair, no_port
from appswitch.edge.peer_channel import UnreachableError
from appswitch.edge.peers import Peers
from appswitch.edge.relay import Relay
from appswitch.edge.remote import ANSWERS_WITHIN, connect
from appswitch.edge.sealed import Sealed
from appswitch.edge.tcp_names import SWEEP_EVERY, Name, TcpNames
from appswitch.host.cookies import cookie_of
from appswitch.model import GATEWAY, App, Kind, Listener
from appswitch.wire.addresses import pack_ip
from appswitch.wire.peer import MOST_NAMES, Announced, Leave
from appswitch.wire.peer_channel import arrival
from appswitch.wire.socknames import Medium

OUTCOME_SIZE = 4
MOST_ERRNO = 4095  # linux/err.h, MAX_ERRNO
PAUSE = 0.1  # seconds between two rounds of all gateways
KEEPALIVE = ((socket.TCP_KEEPIDLE, 10), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))  # seconds, seconds, times

log = structlog.get_logger()


def tune(connection: socket.socket) -> None:
    """One that the relay gets: what comes goes on at once, and a host that has died is noticed (tcp(7))."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE:
        connection.setsockopt(socket.IPPROTO_TCP, option, value)


@define
class Leaving:
    """Has connections leave by gateways."""

    exits: Exits
    peers: Peers
    sealed: Sealed
    relay: Relay
    named: NamedSockets
    names: TcpNames
    events: Events
    _nursery: trio.Nursery | None = None

    async def run(self) -> None:
        """Carries out what `connect` begins, for ever."""
        async with trio.open_nursery() as self._nursery:
            await trio.sleep_forever()

    async def connect(
        self, app: App, plan: Egress, asked: Asked, source: Pair, listener: Listener | None = None
    ) -> tuple[socket.socket, Name]:
        """A socket that connects. source: as the program is to see it; port 0: any; listener: of an external server, if
        it is one. OSError: it can't even begin.
        """
        end = next(self.named.sources(source, asked), None)
        if end is None:
            raise no_port(source)
        if self._nursery is None:
            raise OSError(errno.ENETDOWN, "we have only just started")
        try:
            held, client = await self.sealed.hold(asked.family)
        except PermissionError:
            reason = "a way out by a gateway needs a network namespace, which the kernel forbids here"
            raise OSError(errno.ENETUNREACH, reason) from None
        name = Name(self.named.name(end, asked, asked.family, Medium.TCP_CLIENT), app, listener, plan.names, True)
        self.names.add(client, name)
        self._nursery.start_soon(self._while_wanted, cookie_of(client), self._carry_out, app, plan, listener, held)
        return client, name

    async def _while_wanted(self, cookie: int, carry_out: Callable[..., Awaitable[None]], *arguments: object) -> None:
        """Until the program has closed its socket, or its own kernel has given up."""

        async def watch() -> None:
            while cookie in self.names:  # noqa: ASYNC110 - the sweep announces nothing
                await trio.sleep(SWEEP_EVERY)
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await carry_out(*arguments)
            nursery.cancel_scope.cancel()

    async def _carry_out(self, app: App, plan: Egress, listener: Listener | None, held: bytes) -> None:
        """Says what comes of a held connect."""
        server = listener and listener.app
        where = {"server": server, "address": plan.ip, "port": plan.port, "proto": "tcp", "medium": GATEWAY}
        try:
            gateway, connection = await self._by_any(app, plan, is_external=listener is not None)
        except OSError as error:
            self.events.publish(Kind.REFUSE, app, reason=error.strerror, error=error.errno, **where)
            await self._fail(held, error)
            return
        with connection:
            try:
                other_end = await self.sealed.meet(held)
                tune(other_end)
                await self.relay.join(other_end, connection)
            except OSError as error:  # its program has given up; or there is no relay, and the connection is reset
                log.debug("a connection to the outside isn't joined", reason=error.strerror)
                return
        for kind in plan.verdict.kinds:
            facts = {"rule": plan.verdict.rule, "reason": f"by the gateway {gateway}"}
            self.events.publish(kind, app, **facts, **where)

    async def _fail(self, held: bytes, error: OSError) -> None:
        try:
            await self.sealed.fail(held, error.errno or errno.EHOSTUNREACH)
        except OSError as failed:  # who makes them has ended: then the connect fails by itself
            log.debug("a connect can't be failed", reason=failed.strerror)

    async def _by_any(self, app: App, plan: Egress, *, is_external: bool) -> tuple[str, socket.socket]:
        """By which gateway, and the connection to it, which goes on to the outside. OSError for the program."""
        gateways = list(plan.gateways)
        until = trio.current_time() + UNREACHABLE_AFTER
        while True:
            said = None
            for gateway in self.exits.order(gateways, trio.current_time()):
                try:
                    connection = await self._by(gateway, app, plan, is_external=is_external)
                except UnreachableError as error:
                    if self.exits.failed(gateway, trio.current_time()):
                        log.warning("a gateway doesn't answer", peer=gateway, reason=error.strerror)
                except OSError as error:
                    self.exits.worked(gateway)
                    if error.errno not in NO_WAY:
                        raise
                    said = error
                else:
                    self.exits.worked(gateway)
                    return gateway, connection
            if said is not None:
                raise said
            if trio.current_time() > until:
                raise OSError(errno.EHOSTUNREACH, "no gateway answers")
            await trio.sleep(PAUSE)
            gateways = list(self.exits.others())

    async def _by(self, gateway: str, app: App, plan: Egress, *, is_external: bool) -> socket.socket:
        """UnreachableError: the gateway doesn't answer, or not any more; any other OSError: what it says."""
        request = Leave(app.number, pack_ip(plan.ip), plan.port, plan.names[:MOST_NAMES], is_external)
        try:
            answer, session = await self.peers.ask_in_session(gateway, request, ANSWERS_WITHIN)
        except BlockingIOError as error:  # EAGAIN: it has only just started, and doesn't know us yet
            raise UnreachableError(errno.EHOSTUNREACH, f"node {gateway}: {error.strerror}") from None
        address = self.peers.address_of(gateway)
        if address is None or not isinstance(answer, Announced):
            raise UnreachableError(errno.EHOSTUNREACH, f"node {gateway} isn't known any more")
        connection = await connect(address, 4, arrival(session, answer.number), wait=True)
        try:
            tune(connection)
            outcome = await _outcome(connection)
        except BaseException as failed:
            connection.close()
            if isinstance(failed, OSError):
                raise UnreachableError(failed.errno or errno.EIO, f"node {gateway}: {failed.strerror}") from None
            raise
        if outcome:
            connection.close()
            raise OSError(outcome, f"the gateway {gateway}: {os.strerror(outcome)}")
        return connection


async def _outcome(connection: socket.socket) -> int:
    """What the gateway's connect came to: an errno, or 0. It takes as long as that. OSError: it has ended instead."""
    said = b""
    while len(said) < OUTCOME_SIZE:
        await trio.lowlevel.wait_readable(connection)
        try:
            more = connection.recv(OUTCOME_SIZE - len(said))
        except BlockingIOError:
            continue
        if not more:
            raise ConnectionResetError(errno.ECONNRESET, "it has closed the connection")
        said += more
    outcome = int.from_bytes(said, "big")
    return outcome if outcome <= MOST_ERRNO else errno.EPROTO
