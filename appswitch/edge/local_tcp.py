"""TCP between apps of one host (`spawn --tcp`), for programs that depend on what a Unix socket can't do.

Both ends come from a process that makes them where nobody else is (host/sealed.py); it is started when they are needed
first, and again should it end. The client gets one, the other is delivered (edge/deliver.py).
"""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from contextlib import ExitStack

import structlog
import trio
from attrs import define, field

from appswitch.core.route import Reach
from appswitch.edge.deliver import Deliverer
from appswitch.edge.diag import Diag
from appswitch.edge.dial import Asked, Dial, Dialled
from appswitch.host import sealed
from appswitch.model import Listener

log = structlog.get_logger()


class Maker:
    """A process that makes pairs. OSError when it doesn't start."""

    def __init__(self) -> None:
        self._channel, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with far:
            command = [sys.executable, "-m", sealed.__name__, str(far.fileno())]
            self._process = subprocess.Popen(
                command, pass_fds=[far.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
            )
        self._channel.setblocking(False)
        self.diag: Diag | None = None

    async def start(self) -> None:
        """Until it is ready. OSError when it can't be."""
        said, fds = await self._receive()
        if said != sealed.READY or len(fds) != 1:
            raise OSError(errno.ENETDOWN, "the maker of TCP connections didn't start")
        self.diag = Diag(fds[0])

    async def make(self, client_version: int, server_version: int) -> sealed.Pair:
        """The client's end and the server's. OSError: there is no room, or (EPIPE) the process has gone."""
        request = bytes([client_version, server_version])
        self._channel.send(request)
        answer, made = await self._receive()
        if answer == request and (await self._receive())[0] == sealed.CLOSED and len(made) == 2:
            return made[0], made[1]
        for each in made:
            each.close()
        error = int.from_bytes(answer, "little") if len(answer) == 4 else errno.EMFILE if answer else errno.EPIPE
        raise OSError(error, os.strerror(error))

    async def _receive(self) -> tuple[bytes, list[socket.socket]]:
        with trio.CancelScope(shield=True):  # else the next one would get this answer
            await trio.lowlevel.wait_readable(self._channel)
        said, fds, _, _ = socket.recv_fds(self._channel, 16, 2)
        made = [socket.socket(fileno=fd) for fd in fds]
        for each in made:
            each.set_inheritable(False)  # recv_fds takes no notice of flags
        return said, made

    def close(self) -> None:
        """Ends the process."""
        self._channel.close()
        self._process.kill()
        self._process.wait()


def _kind(listener: Listener) -> int:
    """Of the socket that accept gives (sealed.FAMILIES). An address of its own makes it IPV6_V6ONLY (inet6_bind)."""
    v6only = listener.v6only or (listener.ip.version == 6 and not listener.ip.is_unspecified)
    return sealed.V6ONLY if listener.family == 6 and v6only else listener.family


@define
class LocalTcp:
    """The way to an instance here when it is to be TCP. OSError, too, when no connection can be made."""

    deliverer: Deliverer
    _maker: Maker | None = None
    _asking: trio.Lock = field(factory=trio.Lock)

    def begin(self, asked: Asked, closing: ExitStack) -> Dial:
        """As of Way. One pair serves until some instance takes it."""
        pairs: dict[int, sealed.Pair] = {}

        async def dial(plan: Reach, listener: Listener) -> Dialled:
            kind = _kind(listener)
            if kind not in pairs:
                pairs[kind] = await self._make(asked.family, kind)
                for each in pairs[kind]:
                    closing.callback(each.close)
            client, server = pairs[kind]
            with await self.deliverer.address((plan.source, plan.port), asked, listener) as carrier:
                name = self.deliverer.deliver(carrier, asked.app, listener, server).of_client()
            self.deliverer.names.add(client, name)
            return Dialled(client.dup(), listener, name)

        return dial

    async def _make(self, client_version: int, server_version: int) -> sealed.Pair:
        async with self._asking:
            try:
                maker = self._maker or await self._start()
                return await maker.make(client_version, server_version)
            except (BrokenPipeError, ConnectionResetError):
                self._stop()
                return await (await self._start()).make(client_version, server_version)

    async def _start(self) -> Maker:
        log.info("TCP between apps of this host: starting the process that makes it")
        maker = Maker()
        try:
            await maker.start()
        except OSError:
            maker.close()
            raise
        assert maker.diag is not None
        self.deliverer.names.diags.append(maker.diag)
        self._maker = maker
        return maker

    def _stop(self) -> None:
        """What it has made goes on, and is still watched."""
        if self._maker is not None:
            self._maker.close()
            self._maker = None

    async def close_at_end(self) -> None:
        """Waits until it is cancelled, and then ends the process."""
        try:
            await trio.sleep_forever()
        finally:
            self._stop()
