"""Containers: programs of a network namespace that somebody else has made, who say by their environment who they are.

The kernel tells which namespace calls (edge/apps.py), but not who that is to be. That a process says itself, as with
LD_PRELOAD alone; believed is who comes through a socket of its own, which containers have mounted and others can't
come to (host/containers.py). All of the namespace is one app, also what has another environment, and containers that
share it.

- Where there is nothing but `lo`, the namespace becomes the app's as that of `spawn` does: a keeper joins it.
- Where there is a network, it is left alone: the app is as one without a namespace, known by a token.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

import structlog
import trio
from attrs import define, field

from appswitch.edge.apps import Apps, Credentials, command_of
from appswitch.errors import AppSwitchError
from appswitch.host import containers
from appswitch.host.container import READY
from appswitch.host.processes import without_preload
from appswitch.model import App

STARTS_WITHIN = 10.0  # seconds

log = structlog.get_logger()


@define
class Containers:
    """trap: our socket, where keepers find us and those after us."""

    apps: Apps
    trap: Path
    _making: trio.Lock = field(factory=trio.Lock)

    def is_sealed(self, caller: Credentials) -> bool:
        """Whether the caller's namespace has no network. AppSwitchError: it has gone."""
        try:
            return containers.is_sealed(caller.pid)
        except OSError:
            hint = "the trap handler must see the processes of containers: it belongs into the host's pid namespace"
            raise AppSwitchError("gone", f"process {caller.pid} can't be looked at", hint) from None

    async def register(self, caller: Credentials, identity: dict[str, object]) -> App:
        """The app of the caller's namespace, made by the first who calls. identity: as the control call `spawn` has it.

        AppSwitchError: there can be none.
        """
        async with self._making:  # two processes of one container may be the first
            app = self.apps.owner_of(caller.netns)
            if app is None:
                await self._start_keeper(caller, identity)
                app = self.apps.owner_of(caller.netns)
            if app is None:
                raise AppSwitchError("gone", "the container's keeper has ended")
            return app

    async def _start_keeper(self, caller: Credentials, identity: dict[str, object]) -> None:
        arguments = {**identity, "command": list(command_of(caller)), "uid": caller.uid}
        command = [sys.executable, "-m", "appswitch.host.container", str(self.trap), str(caller.pid), str(caller.netns)]
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            ours.setblocking(False)
            ours.send(json.dumps(arguments).encode())
            with its:
                await trio.lowlevel.open_process(
                    command, stdin=its.fileno(), env=without_preload(os.environ), start_new_session=True
                )  # it outlives us
            said = b"the container's keeper doesn't answer"
            with trio.move_on_after(STARTS_WITHIN):
                await trio.lowlevel.wait_readable(ours)
                said = ours.recv(1 << 16) or b"the container's keeper has ended"
        if said != READY:
            raise AppSwitchError("no-namespace", said.decode(errors="replace"))
