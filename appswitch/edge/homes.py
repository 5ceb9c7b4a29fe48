"""Network namespaces for the datagrams of apps that have none of their own, each made when its app first needs it.

Where the kernel forbids namespaces, such an app's datagrams stay in the host's network.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable

import structlog
import trio

from appswitch.edge import namespaces
from appswitch.edge.apps import Apps
from appswitch.edge.dns import DnsServer
from appswitch.edge.name_servers import NameServers
from appswitch.edge.namespaces import Namespace
from appswitch.host.home import READY
from appswitch.host.processes import without_preload
from appswitch.model import App

STARTS_WITHIN = 10.0  # seconds
NO_ANSWER = b"no answer"

log = structlog.get_logger()


class Homes:
    """dns: makes the DNS server of an app."""

    def __init__(self, apps: Apps, dns: Callable[[App], DnsServer]) -> None:
        self._apps = apps
        self._dns = dns
        self._nursery: trio.Nursery | None = None
        self._making = trio.Lock()
        self._forbidden = False

    async def run(self) -> None:
        """Keeps them, for ever."""
        async with trio.open_nursery() as self._nursery:
            await trio.sleep_forever()

    async def of(self, app: App) -> Namespace | None:
        """The namespace of `app`; None: there can be none."""
        async with self._making:
            if app.id not in self._apps.namespaces and not self._forbidden and self._nursery is not None:
                await self._nursery.start(self._keep, app)
            return self._apps.namespaces.get(app.id)

    async def _keep(self, app: App, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            with its:
                process = await _start(its, app)
            home = await self._receive(ours)
        if home is None:
            task_status.started()
        else:
            self._apps.namespaces[app.id] = home
            try:
                async with trio.open_nursery() as nursery:
                    self._apps.name_servers[app.id] = NameServers(home, self._dns(app).serve_udp, nursery)
                    task_status.started()
                    nursery.start_soon(self._until_ended, app, nursery.cancel_scope)
                    await process.wait()  # somebody has killed it: the app gets a new one at its next call
                    nursery.cancel_scope.cancel()
            finally:
                del self._apps.namespaces[app.id], self._apps.name_servers[app.id]
                home.close()
        await process.wait()

    async def _until_ended(self, app: App, scope: trio.CancelScope) -> None:
        while app.id in self._apps.table.apps:
            await self._apps.changed()
        scope.cancel()

    async def _receive(self, ours: socket.socket) -> Namespace | None:
        said, fds = NO_ANSWER, list[int]()
        with trio.move_on_after(STARTS_WITHIN):
            await trio.lowlevel.wait_readable(ours)
            said, fds, _, _ = socket.recv_fds(ours, 1024, namespaces.MOST_SOCKETS)
        try:
            if said == READY:
                return namespaces.adopt(fds)
        finally:
            for fd in fds:
                os.close(fd)
        self._forbidden = bool(said) and said != NO_ANSWER
        log.warning("apps without a namespace keep the host's UDP", reason=said.decode(errors="replace"))
        return None


async def _start(its: socket.socket, app: App) -> trio.Process:
    command = [sys.executable, "-m", "appswitch.host.home", str(its.fileno()), str(app.ip), str(app.alias)]
    return await trio.lowlevel.open_process(
        command, stdin=None, pass_fds=[its.fileno()], env=without_preload(os.environ), start_new_session=True
    )
