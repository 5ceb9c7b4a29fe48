"""The other trap handlers: asking them, and letting them ask (wire/peer_channel.py says how each proves who it is).

A channel is opened when there is something to ask, kept while it is in use, and closed when it is idle. Each node asks
over those that it has opened, so there are two between nodes that ask each other. The same port takes the TCP
connections of apps (edge/remote.py); what comes first on a connection tells which it is.

Strangers cost little: so many connections that have not shown the key yet, for so long; the oldest goes for a new one.
Those that did show it, in a HELLO that may be somebody's old one, are counted apart.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, Iterator
from weakref import WeakValueDictionary

import structlog
import trio
from attrs import define, field

from appswitch.edge import peer_channel
from appswitch.edge.peer_channel import Caller, Channel, Handler, UnreachableError, tune
from appswitch.edge.trouble import Trouble
from appswitch.host.confined import confine_listener
from appswitch.wire.peer import Answer, Request
from appswitch.wire.peer_channel import HEAD_SIZE, NONCE_SIZE, Acceptor, Kind, Opener, PeerError, Session, rest_of

OPEN_WITHIN = 0.5  # seconds until a channel stands
PROVEN_WITHIN = 2.0  # seconds that somebody may take to show the key
MOST_UNPROVEN = 256
MOST_ANSWERED = 4  # channels that one node may ask over: it needs one, and may have lost others
BACKLOG = 4096
COMPLAIN_EVERY = 10.0  # seconds between two lines about strangers

Arrived = Callable[[bytes, socket.socket], Awaitable[None]]
"""A preamble, and the connection, to be detached. PeerError: it isn't expected."""

log = structlog.get_logger()


def listen(ip: str, port: int) -> socket.socket:
    """The socket for `serve`. OSError.

    It is IPv6's where there is any, for IPv4, too: programs get what it accepts, and such a socket takes the options of
    both.
    """
    try:
        listening = socket.socket(socket.AF_INET6)
    except OSError:
        listening = socket.socket(socket.AF_INET)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if listening.family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listening.bind((for_family(ip, listening.family), port))
        confine_listener(listening)
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except OSError:
        listening.close()
        raise
    return listening


def for_family(ip: str, family: int) -> str:
    """An address as a socket of this family takes it."""
    return f"::ffff:{ip}" if family == socket.AF_INET6 and ":" not in ip else ip


class _Room:
    """So many may be in here. The oldest goes for a new one."""

    def __init__(self) -> None:
        self._scopes: dict[trio.CancelScope, None] = {}

    @contextlib.contextmanager
    def wait(self, most: int, within: float = math.inf) -> Iterator[trio.CancelScope]:
        """What happens here must be done within so many seconds."""
        if len(self._scopes) >= most:
            oldest = next(iter(self._scopes))
            del self._scopes[oldest]
            oldest.cancel()
        with trio.move_on_after(within) as scope:
            self._scopes[scope] = None
            try:
                yield scope
            finally:
                self._scopes.pop(scope, None)


@define
class _Opening:
    """A channel that is being opened: how it came out."""

    done: trio.Event = field(factory=trio.Event)
    channel: Channel | None = None
    error: UnreachableError | None = None


class Peers:
    """node: our own name; key: the cluster's; address_of: where another node's peer port is, None: not known.

    handlers: who answers, by the type of the request; what one raises as OSError the other side raises, too. arrived:
    takes over a TCP connection of an app and its preamble.
    """

    def __init__(self, node: str, key: bytes, address_of: Callable[[str], tuple[str, int] | None]) -> None:
        self.handlers: dict[type, Handler] = {}
        self.arrived: Arrived = _turn_away
        self.address_of = address_of
        self._node = node
        self._key = key
        self._nursery: trio.Nursery | None = None
        self._listening: socket.socket | None = None
        self._accepting = trio.CancelScope()
        self._open: dict[str, Channel] = {}
        self._opening: dict[str, _Opening] = {}
        self._strangers = _Room()
        self._greeted = _Room()
        self._asking: WeakValueDictionary[str, _Room] = WeakValueDictionary()
        """By node; those that aren't known (yet) share one."""
        self._quiet_until = 0.0
        self._known_wrong: dict[str, str] = {}

    async def serve(
        self, listening: socket.socket, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Takes connections for ever, and keeps our channels. listening: non-blocking."""
        async with trio.open_nursery() as nursery:
            self._nursery, self._listening, self._accepting = nursery, listening, trio.CancelScope()
            task_status.started()
            with self._accepting:
                await self._accept(listening)
            await trio.sleep_forever()

    async def _accept(self, listening: socket.socket) -> None:
        trouble = Trouble("other nodes can't be accepted: they wait")
        while True:
            await trio.lowlevel.wait_readable(listening)
            try:
                connection, _ = listening.accept()
            except (BlockingIOError, ConnectionAbortedError):
                continue
            except OSError as error:  # out of descriptors or memory: those who are connected go on
                trouble.note(error.errno)
                await trio.sleep(0.1)
                continue
            connection.setblocking(False)
            self.meet(connection)

    @property
    def port(self) -> socket.socket:
        """Where we accept, once we serve."""
        assert self._listening is not None
        return self._listening

    def yield_port(self) -> None:
        """From now on it is the caller who accepts there, and has us `meet` what isn't for itself."""
        self._accepting.cancel()

    def meet(self, connection: socket.socket) -> None:
        """A new one, non-blocking."""
        assert self._nursery is not None
        self._nursery.start_soon(self._meet, connection)

    # --- asking

    async def ask(self, node: str, request: Request, patience: float) -> Answer:
        """What `node` answers.

        UnreachableError (an OSError): it can't be asked, or doesn't answer within `patience` seconds from when the
        channel stands; any other OSError: it says no.
        """
        answer, _ = await self.ask_in_session(node, request, patience)
        return answer

    async def ask_in_session(self, node: str, request: Request, patience: float) -> tuple[Answer, Session]:
        """As `ask`; and in which session it was answered."""
        answer, channel = await self.ask_by_channel(node, request, patience)
        return answer, channel.session

    async def ask_by_channel(self, node: str, request: Request, patience: float) -> tuple[Answer, Channel]:
        """As `ask`; and over which channel it was answered."""
        kept = self._open.get(node)
        if kept is not None and not kept.is_over:
            try:
                return await kept.ask(request, patience), kept
            except UnreachableError:
                if not kept.is_over:
                    raise
                # Its trap handler may have been restarted since we asked last.
        channel = await self.channel(node)
        return await channel.ask(request, patience), channel

    async def channel(self, node: str) -> Channel:
        """One that is open. UnreachableError."""
        kept = self._open.get(node)
        if kept is not None and not kept.is_over:
            return kept
        opening = self._opening.get(node)
        if opening is None:
            if self._nursery is None:
                raise UnreachableError(errno.ENETDOWN, "this node isn't in a cluster yet")
            opening = self._opening[node] = _Opening()
            self._nursery.start_soon(self._keep_channel, node, opening)
        await opening.done.wait()
        if opening.channel is None:
            assert opening.error is not None
            raise UnreachableError(*opening.error.args)
        return opening.channel

    async def _keep_channel(self, node: str, opening: _Opening) -> None:
        error = UnreachableError(errno.ETIMEDOUT, f"no channel to node {node} within {OPEN_WITHIN} s")
        channel = None
        try:
            with trio.move_on_after(OPEN_WITHIN):
                channel = await self._open_channel(node)
        except OSError as failed:
            error = UnreachableError(failed.errno or errno.EIO, f"node {node}: {failed.strerror}")
        except PeerError as failed:
            error = UnreachableError(errno.EPROTO, f"node {node}: {failed}")
            if self._known_wrong.get(node) != str(failed):
                log.error("what answers at a node's address isn't it", peer=node, reason=str(failed))
                self._known_wrong[node] = str(failed)
        finally:
            opening.channel, opening.error = channel, error
            opening.done.set()
            del self._opening[node]
        if channel is not None:
            self._known_wrong.pop(node, None)
            self._open[node] = channel
            try:
                await channel.run()
            finally:
                if self._open.get(node) is channel:
                    del self._open[node]

    async def _open_channel(self, node: str) -> Channel:
        address = self.address_of(node)
        if address is None:
            raise OSError(errno.EHOSTUNREACH, "not known here")
        connection = await _connect(*address)
        try:
            tune(connection)
            opener = Opener(self._key, self._node, node, secrets.token_bytes(NONCE_SIZE))
            await _send(connection, opener.hello)
            _, welcome = await _read_opening(connection)
            proof, session = opener.prove(welcome)
            await _send(connection, proof)
        except BaseException:
            connection.close()
            raise
        return Channel(connection, session, node)

    # --- being asked

    async def _meet(self, connection: socket.socket) -> None:
        """Finds out what a new connection is. It is closed in the end, or taken over."""
        with connection:
            try:
                first = None
                with self._strangers.wait(MOST_UNPROVEN, PROVEN_WITHIN):
                    first = await _read_opening(connection)
                if first is None:
                    raise PeerError("it shows no key in time")
                kind, opening = first
                if kind is Kind.ARRIVAL:
                    await self.arrived(opening, connection)
                    return
                caller = await self._let_in(connection, opening)
            except (OSError, PeerError) as error:
                self._complain(connection, str(error))
                return
            tune(connection)
            try:
                is_known = self.address_of(caller.node) is not None
                room = self._asking.setdefault(caller.node if is_known else "", _Room())
                with room.wait(MOST_ANSWERED if is_known else MOST_UNPROVEN):
                    await peer_channel.answer(connection, caller, self.handlers)
            except* (OSError, PeerError, ValueError) as broken:
                reasons = ", ".join(str(each) for each in broken.exceptions)
                log.warning("the channel from a node broke", peer=caller.node, reason=reasons)

    async def _let_in(self, connection: socket.socket, hello: bytes) -> Caller:
        acceptor = Acceptor(self._key, self._node, secrets.token_bytes(NONCE_SIZE))
        welcome, node = acceptor.welcome(hello)
        session: Session | None = None
        with self._greeted.wait(MOST_UNPROVEN, PROVEN_WITHIN):
            await _send(connection, welcome)
            _, proof = await _read_opening(connection)
            session = acceptor.check(proof)
        if session is None:
            raise PeerError(f"who said to be node {node} didn't prove it in time")
        return Caller(node, session)

    def _complain(self, connection: socket.socket, reason: str) -> None:
        """Somebody may do this a thousand times a second."""
        now = trio.current_time()
        if now >= self._quiet_until:
            self._quiet_until = now + COMPLAIN_EVERY
            try:
                address = connection.getpeername()[0]
            except OSError:
                address = "?"
            log.warning("a connection to the peer port is turned away", address=address, reason=reason)


async def _turn_away(_opening: bytes, _connection: socket.socket) -> None:
    raise PeerError("no connection is expected here")


async def _connect(ip: str, port: int) -> socket.socket:
    """Non-blocking, connected. OSError."""
    connection = trio.socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_STREAM)
    try:
        await connection.connect((ip, port))
    except BaseException:
        connection.close()
        raise
    return socket.socket(fileno=connection.detach())


async def _send(connection: socket.socket, data: bytes) -> None:
    """A few bytes, on a fresh connection, which always has room for them."""
    await trio.lowlevel.checkpoint()
    if connection.send(data, socket.MSG_NOSIGNAL) != len(data):
        raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))


async def _read_opening(connection: socket.socket) -> tuple[Kind, bytes]:
    """Reads it and not a byte more. OSError; PeerError."""
    head = await _read_exactly(connection, HEAD_SIZE)
    kind, rest = rest_of(head)
    return kind, head + await _read_exactly(connection, rest)


async def _read_exactly(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        try:
            data = connection.recv(size - len(found))
        except BlockingIOError:
            await trio.lowlevel.wait_readable(connection)
            continue
        if not data:
            raise PeerError(
                "it broke off" if found else "it closed the connection without a word: another key or version?"
            )
        found += data
    return found
