"""The process that makes TCP sockets where nobody else is (host/sealed.py), as the trap handler sees it.

It is started when it is needed first, and again should it end. What it has made goes on then, and is still watched; but
nothing more comes of what it held.
"""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys

import structlog
import trio
from attrs import define, field

from appswitch.edge.diag import Diag
from appswitch.host import sealed
from appswitch.host.sealed import Op

MEETS_WITHIN = 1.0  # seconds; it is on this host

log = structlog.get_logger()


class _Process:
    """OSError when it doesn't start."""

    def __init__(self) -> None:
        self._channel, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with far:
            command = [sys.executable, "-m", sealed.__name__, str(far.fileno())]
            self._process = subprocess.Popen(
                command, pass_fds=[far.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
            )
        self._channel.setblocking(False)

    async def start(self) -> Diag:
        """Until it is ready; for its namespace. OSError when it can't be."""
        said, fds = await self._receive()
        if said != sealed.READY or len(fds) != 1:
            raise OSError(errno.ENETDOWN, "the maker of TCP connections didn't start")
        return Diag(fds[0])

    async def ask(self, request: bytes, sockets: int) -> tuple[bytes, list[socket.socket]]:
        """What it says, and so many sockets. OSError: why not; EPIPE: it has gone."""
        self._channel.send(request)
        said, made = await self._receive()
        is_answer = len(said) not in (0, sealed.ERROR_SIZE)
        if is_answer and (not made or (await self._receive())[0] == sealed.CLOSED) and len(made) == sockets:
            return said, made
        for each in made:
            each.close()
        error = errno.EMFILE if is_answer else int.from_bytes(said, "little") or errno.EPIPE
        raise OSError(error, os.strerror(error))

    async def _receive(self) -> tuple[bytes, list[socket.socket]]:
        with trio.CancelScope(shield=True):  # else the next one would get this answer
            await trio.lowlevel.wait_readable(self._channel)
        said, fds, _, _ = socket.recv_fds(self._channel, sealed.MOST_REQUEST, 2)
        made = [socket.socket(fileno=fd) for fd in fds]
        for each in made:
            each.set_inheritable(False)  # recv_fds takes no notice of flags
        return said, made

    def close(self) -> None:
        """Ends it."""
        self._channel.close()
        self._process.kill()
        self._process.wait()


@define
class Sealed:
    """diags: gets one for the namespace of each process that is started. OSError: there is no room, or no way."""

    diags: list[Diag]
    _process: _Process | None = None
    _asking: trio.Lock = field(factory=trio.Lock)

    async def pair(self, client_version: int, server_version: int) -> sealed.Pair:
        """The client's end and the server's, connected. Versions: as sealed.FAMILIES."""
        _, (client, server) = await self._ask(bytes([Op.PAIR, client_version, server_version]), 2)
        return client, server

    async def hold(self, version: int) -> tuple[bytes, socket.socket]:
        """A client's socket that goes on connecting until `meet` or `fail` is called with what comes along."""
        held, (client,) = await self._ask(bytes([Op.HOLD, version]), 1)
        return held, client

    async def meet(self, held: bytes) -> socket.socket:
        """It is connected: the other end. OSError when the client has closed its."""
        _, (made,) = await self._ask(bytes([Op.MEET]) + held, 1)
        error = errno.ETIMEDOUT
        try:
            with trio.move_on_after(MEETS_WITHIN):
                await trio.lowlevel.wait_writable(made)
                error = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise OSError(error, "the program has closed its socket")
        except BaseException:
            made.close()
            raise
        return made

    async def fail(self, held: bytes, error: int) -> None:
        """Its connect fails so."""
        await self._ask(bytes([Op.FAIL]) + held + error.to_bytes(2, "little"), 0)

    async def _ask(self, request: bytes, sockets: int) -> tuple[bytes, list[socket.socket]]:
        async with self._asking:
            try:
                return await (self._process or await self._start()).ask(request, sockets)
            except (BrokenPipeError, ConnectionResetError):
                self._stop()
                return await (await self._start()).ask(request, sockets)

    async def _start(self) -> _Process:
        log.info("starting the process that makes TCP connections of apps")
        process = _Process()
        try:
            self.diags.append(await process.start())
        except OSError:
            process.close()
            raise
        self._process = process
        return process

    def _stop(self) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None

    async def close_at_end(self) -> None:
        """Waits until it is cancelled, and then ends the process."""
        try:
            await trio.sleep_forever()
        finally:
            self._stop()
