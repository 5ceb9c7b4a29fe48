"""The relay of this host (shim/relay): a program that passes on what comes by one connection to another, and back.

It is started when it is needed first, and is nobody's child: when we end, whatever ends us, it goes on until its last
pair has ended, and our successor starts another. One that has gone is replaced; what was joined by it is lost.
"""

from __future__ import annotations

import errno
import os
import socket
import subprocess

import structlog
import trio
from attrs import define, field

from appswitch.host.paths import relay_path
from appswitch.wire.relay import TALLY_SIZE, Tally, decode_tally, encode_doors, encode_join, encode_question

FULL_PAUSE = 0.02  # seconds; the kernel passes only so many descriptors at a time (ETOOMANYREFS in unix(7))

log = structlog.get_logger()


@define
class Relay:
    """Joins pairs of connections."""

    _channel: socket.socket | None = None
    _starting: trio.Lock = field(factory=trio.Lock)
    _asking: trio.Lock = field(factory=trio.Lock)

    async def join(
        self, one: socket.socket, other: socket.socket, *, head: bytes = b"", idle: float | None = None
    ) -> None:
        """Each gets what the other one sends, from now on; both sockets are closed here.

        head: what `other` gets before all else; idle: seconds without data after which both are reset. `other` may
        still be connecting. OSError: there is no relay, and both are closed. ValueError: as of encode_join.
        """
        with one, other:
            await self._send_surely(encode_join(head, idle), [one.fileno(), other.fileno()])

    async def lend_doors(self, channel: socket.socket) -> None:
        """It gets the other end of a channel for its doors (edge/doors.py); `channel` is closed here. OSError."""
        with channel:
            await self._send_surely(encode_doors(), [channel.fileno()])

    async def tally(self) -> Tally:
        """What the relay has. OSError: there is none."""
        async with self._asking:
            channel = await self._send(encode_question(), [])
            await trio.lowlevel.wait_readable(channel)
            answer = channel.recv(TALLY_SIZE)
        if not answer:
            raise ConnectionResetError(errno.ECONNRESET, "the relay has gone")
        return decode_tally(answer)

    def close(self) -> None:
        """It goes on until its last pair has ended."""
        if self._channel is not None:
            self._channel.close()
        self._channel = None

    def _forget(self) -> None:
        if self._channel is not None:
            log.error("the relay has gone, and with it the connections that it had")
        self.close()

    async def _send_surely(self, message: bytes, fds: list[int]) -> None:
        """To another relay where the first has gone. OSError: there is none."""
        try:
            await self._send(message, fds)
        except (BrokenPipeError, ConnectionResetError):
            self._forget()
            await self._send(message, fds)

    async def _send(self, message: bytes, fds: list[int]) -> socket.socket:
        """The channel that it went by. OSError: there is no relay; BrokenPipeError, ConnectionResetError: any more."""
        while True:
            channel = self._channel or await self._start()
            try:
                socket.send_fds(channel, [message], fds, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                await trio.lowlevel.wait_writable(channel)
            except OSError as error:
                if error.errno != errno.ETOOMANYREFS:
                    raise
                await trio.sleep(FULL_PAUSE)
            else:
                return channel

    async def _start(self) -> socket.socket:
        async with self._starting:
            if self._channel is not None:
                return self._channel
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                try:
                    await trio.run_process([relay_path()], stdin=theirs.fileno())
                except subprocess.CalledProcessError:
                    ours.close()
                    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None  # as fork(2) says
                except BaseException:
                    ours.close()
                    raise
            ours.setblocking(False)
            self._channel = ours
            return ours
