"""Letting a newer trap handler take over from us (host/succession.py has how the two speak)."""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog
import trio
from attrs import define

from appswitch.errors import AppSwitchError
from appswitch.host.succession import GO, Successor
from appswitch.wire import control, journal

log = structlog.get_logger()


@define
class Succession:
    """node, state_dir: ours; finish: finishes what is under way; stop: ends us."""

    successor: Successor
    node: str
    state_dir: Path
    finish: Callable[[], Awaitable[None]]
    stop: Callable[[], None]

    async def hand_over(self, stream: trio.SocketStream, call: control.TakeOver, uid: int) -> None:
        """Answers a call. Unless the caller turns back, this is our end."""
        try:
            self._check(call, uid)
        except AppSwitchError as error:
            await stream.send_all(control.encode_error(error))
            return
        answer = control.encode_ok({"pid": os.getpid(), "made": self.successor.made})
        rights = b"".join(fd.to_bytes(4, "little") for fd in self.successor.offered)
        await stream.socket.sendmsg([answer], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        if await stream.receive_some(len(GO)) != GO or self.successor.has_come:
            return
        self.successor.come(stream.socket.fileno())
        log.info("stopping", reason="another trap handler takes over")
        await self.finish()
        self.stop()

    def _check(self, call: control.TakeOver, uid: int) -> None:
        mine = (self.node, str(self.state_dir), journal.VERSION)
        if uid != os.geteuid():
            raise AppSwitchError("not-yours", "the trap handler here is another user's", "take over as that user")
        if (call.node, call.state_dir, call.state_version) != mine:
            reason = f"the trap handler here is node {mine[0]}, with its state in {mine[1]}, version {mine[2]}"
            hint = "name the same --node and --state-dir; of another version, stop it, and start its apps again"
            raise AppSwitchError("not-taken-over", reason, hint)
