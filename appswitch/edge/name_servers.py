"""An app that is a DNS server itself.

Our own DNS server has port 53 of the app's namespace, on every address (edge/dns.py). When the app binds that port on
every address, too, what it asks its name servers must still reach us, and not itself. So we give up every address and
take those of the name servers, which the kernel prefers to any-address; others follow when the app turns to them.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterable

import structlog
import trio

from appswitch.edge.namespaces import Namespace
from appswitch.edge.placing import place
from appswitch.model import Address

MOST = 64  # name servers of one app

log = structlog.get_logger()


class NameServers:
    """The UDP sockets of our DNS server in one namespace."""

    def __init__(
        self, home: Namespace, serve: Callable[[socket.socket], Awaitable[None]], nursery: trio.Nursery
    ) -> None:
        """serve: answers on one of them, for ever; in tasks of `nursery`."""
        self._home = home
        self._serve = serve
        self._nursery = nursery
        self._everywhere: list[trio.CancelScope] = []
        self._taken: set[Address] = set()
        self._shared = False
        for each in home.dns:
            if each.type == socket.SOCK_DGRAM:
                nursery.start_soon(self._serve_everywhere, each)

    async def share(self, name_servers: Iterable[Address]) -> None:
        """The app is about to bind port 53 on every address."""
        if self._shared:
            return
        self._shared = True
        for ip in name_servers:
            await self.take(ip)
        with contextlib.suppress(OSError):
            await self._home.release_dns()
        for scope in self._everywhere:
            scope.cancel()

    async def take(self, ip: Address) -> None:
        """The app turns to a name server at `ip`."""
        if not self._shared or ip in self._taken or len(self._taken) >= MOST:
            return
        self._taken.add(ip)
        try:
            made = await place(self._home, ip.version, bound=(ip, 53))
        except OSError as error:
            log.warning("no DNS server for an app", address=str(ip), error=str(error))
            self._taken.discard(ip)
            return
        self._home.adopt_dns(made)
        self._nursery.start_soon(self._serve, made)

    async def _serve_everywhere(self, each: socket.socket) -> None:
        with trio.CancelScope() as scope:
            self._everywhere.append(scope)
            await self._serve(each)
        if self._shared:
            self._home.drop(each)
