"""The trap handler: requests of the shim in, descriptors out.

One task a channel (a SOCK_SEQPACKET connection of some thread of some app). Each request stands alone; a frame that is
none ends its channel with a logged reason and touches no other. Callers take turns (edge/shares.py).
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import structlog
import trio
from attrs import define, field

from appswitch.edge.apps import Apps, Credentials, calls_from, command_of, credentials_of, read_identity
from appswitch.edge.calls import Answer, Answers, failure
from appswitch.edge.containers import Containers
from appswitch.edge.shares import Channels, Key, Turns, key_of
from appswitch.edge.trouble import Trouble
from appswitch.errors import AppSwitchError
from appswitch.model import App
from appswitch.wire import trap
from appswitch.wire.trap import FrameError, VersionError

AT_ONCE = 4  # channels that are accepted in one go
REFUSED_WITHIN = 1.0  # seconds

log = structlog.get_logger()


@define
class TrapHandler:
    """Serves the trap socket of one host."""

    apps: Apps
    calls: Answers
    netns: int
    """The cookie of our own network namespace."""
    _turns: Turns = field(factory=Turns)
    _shares: Channels = field(factory=Channels)
    _accepting: list[trio.CancelScope] = field(factory=list)
    _channels: dict[socket.socket, trio.Event] = field(factory=dict)
    """Those that are open, and what is set at their end."""
    _foreign: set[socket.socket] = field(factory=set)
    """Those whose other end speaks another version."""
    _trouble: Trouble = field(factory=lambda: Trouble("programs' channels can't be accepted: they wait"))

    async def serve(self, listening: socket.socket, containers: Containers | None = None) -> None:
        """Accepts channels, until `finish`. listening: SOCK_SEQPACKET, non-blocking; containers: these call there."""
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as accepting:
                self._accepting.append(accepting)
                while True:
                    await trio.lowlevel.wait_readable(listening.fileno())
                    try:
                        for _ in range(AT_ONCE):
                            channel, _ = listening.accept()
                            self._channels[channel] = trio.Event()
                            nursery.start_soon(self._serve_channel, channel, containers)
                    except BlockingIOError:
                        continue
                    except OSError as error:  # out of descriptors or memory: those who have a channel go on
                        self._trouble.note(error.errno)
                        await trio.sleep(0.1)

    async def keep_turns(self) -> None:
        """For ever."""
        await self._turns.run()

    async def finish(self) -> None:
        """Answers what has been asked so far, and nothing more: callers find their channels closed after the answer."""
        for accepting in self._accepting:
            accepting.cancel()
        for channel in self._channels:
            channel.shutdown(socket.SHUT_RD)  # for us its end comes after what was sent; who sends now gets EPIPE
        for ended in list(self._channels.values()):
            await ended.wait()

    async def _serve_channel(self, channel: socket.socket, containers: Containers | None) -> None:
        channel.setblocking(False)
        caller = credentials_of(channel)
        key = key_of(caller, self.netns)
        try:
            if self._shares.add(key, channel):
                await self._converse(channel, caller, key, containers)
            else:
                await self._refuse(channel, key)
        finally:
            channel.close()
            self._shares.remove(key, channel)
            self._foreign.discard(channel)
            self._channels.pop(channel).set()

    async def _refuse(self, channel: socket.socket, key: Key) -> None:
        """Whoever has too many channels is told so, as soon as it asks for something."""
        with trio.move_on_after(REFUSED_WITHIN), suppress(OSError, FrameError):
            if await self._receive(channel, key) is not None:
                await self._send(channel, failure(errno.ENOBUFS))

    async def _converse(
        self, channel: socket.socket, caller: Credentials, key: Key, containers: Containers | None
    ) -> None:
        app: App | None = None
        try:
            while app is None:
                request = await self._receive(channel, key)
                if request is None:
                    return
                token, first = request
                app, answer = await self._identify(caller, token, first, containers)
                if answer is not None:
                    await self._send(channel, answer)
            with self.apps.hold(app):  # from its first request on, which may take its time
                if answer is None:
                    await self._send(channel, await self.calls.answer(app, first, channel))
                while (request := await self._receive(channel, key)) is not None:
                    await self._send(channel, await self.calls.answer(self.apps.now(app), request[1], channel))
        except FrameError as error:
            log.warning("malformed frame", pid=caller.pid, uid=caller.uid, reason=str(error))
        except OSError as error:
            log.debug("channel broke", pid=caller.pid, error=str(error))
        except Exception:  # a fault of ours: this caller's channel ends, the others go on
            log.exception("trap failed", pid=caller.pid)

    async def _receive(self, channel: socket.socket, key: Key) -> tuple[bytes, trap.Request] | None:
        """The next request; None at the end."""
        while True:
            await trio.lowlevel.wait_readable(channel.fileno())
            if not self._turns.begins(key):
                await self._turns.wait(key)
            try:
                # No room for control data: descriptors that a caller sends along are dropped by the kernel.
                frame = channel.recv(trap.FRAME_SIZE + 1)
            except BlockingIOError:
                continue
            if not frame:
                return None
            try:
                return trap.decode(frame)
            except VersionError as error:
                self._tell_of_version(channel, error)
                await _send_message(channel, error.answer)

    def _tell_of_version(self, channel: socket.socket, error: VersionError) -> None:
        if channel not in self._foreign:
            self._foreign.add(channel)
            log.warning(
                "program to be started again: its libappswitch.so speaks another version of the trap protocol",
                pid=credentials_of(channel).pid, its=error.theirs, ours=error.ours,
            )  # fmt: skip

    async def _send(self, channel: socket.socket, answer: Answer) -> None:
        """Blocks only on a caller that doesn't read its answers."""
        if answer.passed is None:
            await _send_message(channel, answer.frame, answer.shared)
            return
        with answer.passed:
            await _send_message(channel, trap.closes(answer.frame), answer.descriptors())
        await _send_message(channel, trap.CLOSED)

    async def _identify(
        self, caller: Credentials, token: bytes, request: trap.Request, containers: Containers | None
    ) -> tuple[App | None, Answer | None]:
        """The first request on a channel: whose is it? And the answer, where that is not the app's."""
        app = self.apps.identify(caller, token)
        registers = isinstance(request, trap.Register)
        if app is not None and not (registers and self.apps.owner_of(caller.netns)):
            return app, None
        if app is not None:  # another process of its namespace has said who it is
            return app, _known_by_namespace(caller)
        if not isinstance(request, trap.Register):
            return None, failure(errno.ESRCH)  # ask it to register
        try:
            return await self._register(caller, request.settings, containers)
        except AppSwitchError as error:
            log.warning("registration refused", pid=caller.pid, uid=caller.uid, reason=error.message)
            return None, Answer(trap.encode_reply(error=errno.EPERM, text=error.message.encode()))

    async def _register(
        self, caller: Credentials, settings: Mapping[str, str], containers: Containers | None
    ) -> tuple[App, Answer]:
        """LD_PRELOAD without the wrapper: a process of the host's namespace, or a container, says who it is to be."""
        is_host = calls_from(caller, self.netns)
        if containers is None and (not is_host or caller.uid not in (0, os.geteuid())):
            raise AppSwitchError("not-yours", "only processes of the host's namespace and of our user may register")
        identity: dict[str, Any] = {
            "name": settings.get("APPSWITCH_NAME") or None,
            "ip": settings.get("APPSWITCH_IP") or None,
            "tags": [tag for tag in settings.get("APPSWITCH_TAGS", "").split(",") if tag],
            "tcp": settings.get("APPSWITCH_TCP", "") not in ("", "0"),
            "bypasses": settings.get("APPSWITCH_BYPASS", "").split(),
        }
        if containers is not None and not is_host and containers.is_sealed(caller):
            return await containers.register(caller, identity), _known_by_namespace(caller)
        app = self.apps.new_app(
            **read_identity(**identity), pid=caller.pid, uid=caller.uid, command=command_of(caller), netns=False
        )
        return app, Answer(trap.encode_reply(token=self.apps.new_token(app)))


def _known_by_namespace(caller: Credentials) -> Answer:
    """As APPSWITCH_APP has it."""
    return Answer(trap.encode_reply(text=f"netns:{caller.netns:x}".encode()))


async def _send_message(channel: socket.socket, message: bytes, fds: Sequence[int] = ()) -> None:
    while True:
        try:
            if fds:
                socket.send_fds(channel, [message], fds, socket.MSG_NOSIGNAL)
            else:
                channel.send(message, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            await trio.lowlevel.wait_writable(channel.fileno())
        else:
            return
