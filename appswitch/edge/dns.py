"""The built-in DNS server, inside each app's namespace.

`spawn` makes two sockets on port 53 there, where every address is local, and passes them to us: so whatever name server
/etc/resolv.conf names, the question comes here, from glibc, musl, c-ares and static programs alike (DESIGN 3.6). The
sockets are dual-stack; the answer leaves from the address that was asked (IPV6_PKTINFO, ipv6(7)).
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import structlog
import trio
from attrs import frozen

from appswitch.edge.events import Events
from appswitch.model import App, Kind
from appswitch.wire import dns as wire
from appswitch.wire.dns import Found, Zone

MAX_MESSAGE = 65535
UPSTREAM_TIMEOUT = 2.0  # seconds for each try
AT_ONCE = 64  # questions of one app under way to upstream
WAITING = 1024  # and that wait to be; more of them fail at once
IP_PKTINFO = 8  # ip(7); the socket module has no name for it
IDLE = 10.0  # seconds that a TCP client may be silent (RFC 7766 6.2.3)

log = structlog.get_logger()


class Resolver(Protocol):
    """Answers what is no app's."""

    async def ask(self, query: bytes, udp: bool) -> bytes | None:
        """The answer to a query, or None."""


@frozen
class Upstream(Resolver):
    """The host's name servers, (address, port) each, asked in this order, twice."""

    servers: Sequence[tuple[str, int]]

    async def ask(self, query: bytes, udp: bool) -> bytes | None:
        """The first answer, or None. The query's id is replaced underway, so that it can't be guessed from inside."""
        for server in [*self.servers, *self.servers]:
            own_id = secrets.token_bytes(2)
            ask = self._ask_udp if udp else self._ask_tcp
            try:
                with trio.move_on_after(UPSTREAM_TIMEOUT):
                    reply = await ask(server, own_id + query[2:])
                    return query[:2] + reply[2:]
            except (OSError, trio.BrokenResourceError) as error:
                log.debug("name server failed", server=server[0], error=str(error))
        return None

    async def _ask_udp(self, server: tuple[str, int], query: bytes) -> bytes:
        family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
        with trio.socket.socket(family, socket.SOCK_DGRAM) as client:
            await client.connect(server)
            await client.send(query)
            while True:
                reply = await client.recv(MAX_MESSAGE)
                if reply[:2] == query[:2] and len(reply) >= 12:
                    return reply

    async def _ask_tcp(self, server: tuple[str, int], query: bytes) -> bytes:
        stream = await trio.open_tcp_stream(*server)
        async with stream:
            await stream.send_all(len(query).to_bytes(2, "big") + query)
            reply = await _read_message(stream)
            if reply is None or reply[:2] != query[:2]:
                raise OSError("no answer")
            return reply


async def look_up(upstream: Resolver, name: str) -> Found | None:
    """What a name outside stands for, by our own question; None: nothing."""
    try:
        queries = wire.questions(name)
    except ValueError:
        return None
    replies: dict[bytes, bytes | None] = dict.fromkeys(queries)

    async def ask(query: bytes) -> None:
        replies[query] = await upstream.ask(query, udp=True)

    async with trio.open_nursery() as nursery:
        for each in queries:
            nursery.start_soon(ask, each)
    said = [wire.found(query, reply) for query, reply in replies.items() if reply]
    found = [each for each in said if each is not None]
    addresses = tuple(ip for each in found for ip in each.addresses)
    return Found(name, addresses, min(each.ttl for each in found)) if found else None


class DnsServer:
    """Answers the questions of one app."""

    def __init__(
        self,
        zone: Zone,
        upstream: Resolver,
        answered: Callable[[bytes], None],
        found: Callable[[Found], None] = lambda _: None,
    ) -> None:
        """answered: called with each answer; found: with each name outside that stands for addresses."""
        self._found = found
        self._zone = zone
        self._upstream = upstream
        self._answered = answered
        self._room = trio.Semaphore(AT_ONCE)

    async def serve_udp(self, datagrams: socket.socket) -> None:
        """datagrams: bound to port 53 in the app's namespace, with IPV6_RECVPKTINFO set. Runs for ever."""
        datagrams.setblocking(False)
        async with trio.open_nursery() as nursery:
            while True:
                await trio.lowlevel.wait_readable(datagrams.fileno())
                try:
                    query, control, _, client = datagrams.recvmsg(MAX_MESSAGE, 256)
                except OSError:  # nothing there after all, or an ICMP error of an earlier answer
                    continue
                if client[1] == 53:
                    continue  # a server's answer, or two servers talking past each other
                pktinfo = [each for each in control if each[1] in (socket.IPV6_PKTINFO, IP_PKTINFO)]
                answer_to = partial(self._send, datagrams, pktinfo, client)
                try:
                    reply = wire.answer(query, self._zone, udp=True)
                except wire.NotAQuery:
                    continue
                if reply is not None:
                    answer_to(reply)
                elif len(nursery.child_tasks) < WAITING:
                    nursery.start_soon(self._forward_datagram, query, answer_to)
                else:
                    answer_to(wire.server_failure(query))

    async def _forward_datagram(self, query: bytes, answer_to: Callable[[bytes], None]) -> None:
        answer_to(await self._forward(query, udp=True))

    async def serve_tcp(self, listening: socket.socket) -> None:
        """listening: on port 53 in the app's namespace. Runs for ever."""
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening))
        await trio.serve_listeners(self._serve_stream, [listener])

    async def _serve_stream(self, stream: trio.SocketStream) -> None:
        try:
            while True:
                query = None
                with trio.move_on_after(IDLE):
                    query = await _read_message(stream)
                if query is None:
                    return
                reply = await self._answer(query, udp=False)
                if reply is None:
                    return
                self._answered(reply)
                with trio.move_on_after(IDLE) as sending:
                    await stream.send_all(len(reply).to_bytes(2, "big") + reply)
                if sending.cancelled_caught:
                    return
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            return

    async def _answer(self, query: bytes, udp: bool) -> bytes | None:
        try:
            reply = wire.answer(query, self._zone, udp)
        except wire.NotAQuery:
            return None
        return reply if reply is not None else await self._forward(query, udp)

    async def _forward(self, query: bytes, udp: bool) -> bytes:
        """Upstream's answer, or our word that there is none. Names of apps never wait behind these."""
        async with self._room:
            reply = await self._upstream.ask(query, udp)
        if reply is None:
            return wire.server_failure(query)
        found = wire.found(query, reply)
        if found is not None:
            self._found(found)
        return reply

    def _send(
        self, datagrams: socket.socket, pktinfo: list[tuple[int, int, bytes]], client: tuple[str, int], reply: bytes
    ) -> None:
        """From the address that was asked. The app's queue is full or its socket is gone: as lost datagrams are."""
        self._answered(reply)
        try:
            datagrams.sendmsg([reply], pktinfo, 0, client)
        except OSError as error:
            log.debug("DNS answer lost", error=str(error))


def publish_answer(events: Events, app: App, reply: bytes) -> None:
    """The event of an answer to `app`."""
    events.publish(Kind.RESOLVE, app, **wire.describe(reply))


async def _read_message(stream: trio.SocketStream) -> bytes | None:
    """A message with its two-byte length (RFC 1035 4.2.2); None at the end."""
    length = await _read_exactly(stream, 2)
    return None if length is None else await _read_exactly(stream, int.from_bytes(length, "big"))


async def _read_exactly(stream: trio.SocketStream, size: int) -> bytes | None:
    data = b""
    while len(data) < size:
        more = await stream.receive_some(size - len(data))
        if not more:
            return None
        data += more
    return data
