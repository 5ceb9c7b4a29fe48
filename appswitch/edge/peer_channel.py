"""A peer channel that is open: questions one way, answers the other, many at once (wire/peer.py, wire/peer_channel.py).

What is to be sent goes at once as far as the kernel takes it, the rest when it does. What comes is read by one task,
which ends with the channel; then every question that waits fails at once.
"""

from __future__ import annotations

import errno
import itertools
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog
import trio
from attrs import define, field, frozen

from appswitch.wire import peer
from appswitch.wire.peer import Answer, Ask, Refused, Reply, Request
from appswitch.wire.peer_channel import MOST_ASKED, PeerError, Sealer, Session, Unsealer, asks_key, replies_key

IDLE = 30.0  # seconds; then whoever has opened it closes it
BUSY = 10  # times its patience that a question waits while the other side answers others
AT_ONCE = 256  # questions of one channel that are being answered; further ones wait
MOST_WAITING = 1 << 25  # bytes that wait to be sent to somebody who doesn't read
DEAD_WITHIN = 5  # seconds without a word from the other host's kernel

log = structlog.get_logger()


class UnreachableError(OSError):
    """A node can't be asked, or doesn't answer: that says nothing about what it was asked."""


@frozen
class Caller:
    """Who asks. session: of the channel that it asks over."""

    node: str
    session: Session


Handler = Callable[[Caller, Any], Awaitable[Answer]]


def tune(connection: socket.socket) -> None:
    """Small messages go at once; a dead host is noticed (tcp(7))."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, DEAD_WITHIN - 2)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_WITHIN * 1000)


class Outbox:
    """What is on its way to the other side. connection: non-blocking."""

    def __init__(self, connection: socket.socket, key: bytes) -> None:
        self._connection = connection
        self._sealer = Sealer(key)
        self._waiting = bytearray()
        self._more = trio.Event()

    def put(self, body: bytes) -> None:
        """Sends it as a frame. PeerError: it is too large; OSError: the connection is broken, or takes nothing."""
        if len(self._waiting) > MOST_WAITING:
            raise OSError(errno.ENOBUFS, "the other side doesn't read")
        first = not self._waiting
        self._waiting += self._sealer.seal(body)
        if first:
            self._send()
            if self._waiting:
                self._more.set()

    async def run(self) -> None:
        """Sends what the kernel doesn't take at once, for ever. OSError when the connection is broken."""
        while True:
            await self._more.wait()
            self._more = trio.Event()
            while self._waiting:
                await trio.lowlevel.wait_writable(self._connection)
                self._send()

    def _send(self) -> None:
        try:
            sent = self._connection.send(self._waiting, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return
        del self._waiting[:sent]


async def read(connection: socket.socket, unsealer: Unsealer, take: Callable[[bytes], Awaitable[None]]) -> None:
    """Has the bodies of frames taken until the other side closes. OSError; PeerError."""
    while True:
        await trio.lowlevel.wait_readable(connection)
        try:
            data = connection.recv(65536)
        except BlockingIOError:
            continue
        if not data:
            return
        for body in unsealer.bodies(data):
            await take(body)


@define
class _Waiting:
    answered: trio.Event = field(factory=trio.Event)
    answer: Answer | None = None


class Channel:
    """The side that asks. connection: non-blocking."""

    def __init__(self, connection: socket.socket, session: Session, node: str) -> None:
        self.session = session
        self.ended = trio.Event()
        self._node = node
        self._connection = connection
        self._outbox = Outbox(connection, asks_key(session))
        self._numbers = itertools.count(1)
        self._waiting: dict[int, _Waiting] = {}
        self._used = self._heard = trio.current_time()

    @property
    def is_over(self) -> bool:
        """Whether nothing can be asked any more."""
        return self.ended.is_set()

    async def ask(self, request: Request, patience: float) -> Answer:
        """The answer. UnreachableError: ETIMEDOUT after `patience` seconds, ECONNRESET when the channel ends.

        While answers to others come, the other side is just busy: then it may take up to BUSY times as long. Any other
        OSError: the other side says no.
        """
        number, waiting = next(self._numbers), _Waiting()
        self._waiting[number] = waiting
        self._used = trio.current_time()
        try:
            self._put(Ask(number, request))
            start = trio.current_time()
            while not waiting.answered.is_set() and (deadline := self._deadline(start, patience)):
                with trio.move_on_at(deadline):
                    await waiting.answered.wait()
        finally:
            del self._waiting[number]
        if waiting.answer is None:
            error = errno.ECONNRESET if self.is_over else errno.ETIMEDOUT
            raise UnreachableError(error, f"node {self._node} doesn't answer: {os.strerror(error)}")
        if isinstance(waiting.answer, Refused):
            raise OSError(waiting.answer.error, waiting.answer.reason)
        return waiting.answer

    def _deadline(self, start: float, patience: float) -> float | None:
        """Until when to wait for an answer to what was asked at `start`; None: no longer."""
        deadline = min(max(start, self._heard) + patience, start + BUSY * patience)
        return deadline if trio.current_time() < deadline else None

    def _put(self, question: Ask) -> None:
        if self.is_over:
            raise UnreachableError(errno.ECONNRESET, f"the channel to node {self._node} is closed")
        try:
            self._outbox.put(peer.encode(question))
        except PeerError as error:
            raise OSError(errno.EMSGSIZE, str(error)) from None
        except OSError as error:
            raise UnreachableError(error.errno or errno.EIO, f"node {self._node}: {error.strerror}") from None

    async def run(self) -> None:
        """Until it is idle for some time, or broken."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._outbox.run)
                nursery.start_soon(self._wait_until_idle, nursery.cancel_scope)
                await read(self._connection, Unsealer(replies_key(self.session)), self._take)
                nursery.cancel_scope.cancel()
        except* (OSError, PeerError, ValueError) as broken:
            reasons = ", ".join(str(each) for each in broken.exceptions)
            log.warning("the channel to a node broke", peer=self._node, reason=reasons)
        finally:
            self.ended.set()
            self._connection.close()
            for each in self._waiting.values():
                each.answered.set()

    async def _take(self, body: bytes) -> None:
        self._heard = trio.current_time()
        reply = peer.decode_reply(body)
        waiting = self._waiting.get(reply.number)
        if waiting is not None:  # else it comes too late
            waiting.answer = reply.answer
            waiting.answered.set()

    async def _wait_until_idle(self, scope: trio.CancelScope) -> None:
        while True:
            used = self._used
            await trio.sleep_until(used + IDLE)
            if self._used == used and not self._waiting:
                scope.cancel()
                return
            self._used = max(self._used, used + 1)


async def answer(connection: socket.socket, caller: Caller, handlers: Mapping[type, Handler]) -> None:
    """The other side of a channel: answers what is asked, until it ends.

    OSError, PeerError, ValueError (in a group): it broke.
    """
    outbox = Outbox(connection, replies_key(caller.session))
    limit = trio.Semaphore(AT_ONCE)

    async def reply(asked: Ask) -> None:
        try:
            found = await _handle(caller, asked.request, handlers)
            try:
                outbox.put(peer.encode(Reply(asked.number, found)))
            except PeerError as error:
                outbox.put(peer.encode(Reply(asked.number, Refused(errno.EMSGSIZE, str(error)))))
        finally:
            limit.release()

    async def take(body: bytes) -> None:
        await limit.acquire()
        nursery.start_soon(reply, peer.decode_ask(body))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.run)
        await read(connection, Unsealer(asks_key(caller.session), MOST_ASKED), take)
        nursery.cancel_scope.cancel()


async def _handle(caller: Caller, request: Request, handlers: Mapping[type, Handler]) -> Answer:
    handler = handlers.get(type(request))
    if handler is None:
        return Refused(errno.ENOSYS, f"this node doesn't answer {type(request).__name__}")
    try:
        return await handler(caller, request)
    except OSError as error:
        return Refused(error.errno or errno.EIO, error.strerror or str(error))
    except Exception:  # a fault of ours: the other questions are answered
        log.exception("a peer's question failed", peer=caller.node)
        return Refused(errno.EIO, "a fault of the other trap handler; its log says more")
