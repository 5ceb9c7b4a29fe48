"""The connections to the outside among the connections (edge/connections.py).

They are TCP sockets of our namespace, where there are others' as well. Which are ours, and whose, is remembered by
their cookie, which is a socket's for ever; whether they live, and their inodes, the kernel says.
"""

from __future__ import annotations

import socket
from collections import OrderedDict
from functools import partial
from ipaddress import IPv6Address, ip_address

import structlog
from attrs import evolve

from appswitch.edge.diag import Diag
from appswitch.host.cookies import cookie_of
from appswitch.model import GATEWAY, Address, App, Connection, Listener, State
from appswitch.wire import tcp_diag

REMEMBERED = 65536  # sockets; only those that were made last are listed

log = structlog.get_logger()


class EgressSockets:
    """host: for our own namespace."""

    def __init__(self, host: Diag) -> None:
        self._host = host
        self._made: OrderedDict[int, Connection] = OrderedDict()

    def add(
        self,
        made: socket.socket,
        app: App,
        dest: tuple[Address, int],
        node: str,
        names: tuple[str, ...] = (),
        listener: Listener | None = None,
        medium: str = "tcp",
    ) -> None:
        """`made`, its connect under way, is for `app`, which asked for `dest`. node: this; names: of that server;
        listener: of an external server, if it is one; medium: of an app of this node.
        """
        cookie = cookie_of(made)
        if app.node != node:
            medium = GATEWAY
        self._made[cookie] = Connection(
            app,
            _address(made.getsockname()),
            dest,
            listener.app if listener else None,
            listener,
            node,
            State.ESTABLISHED,
            medium=medium,
            names=names,
        )
        if len(self._made) > REMEMBERED:
            self._made.popitem(last=False)

    async def connections(self) -> list[Connection]:
        """Those that live: a source for Connections."""
        if not self._made:
            return []
        known = list(self._made)  # one that is made meanwhile may not be among those that are found
        inodes: dict[int, int] = {}
        for family in (socket.AF_INET, socket.AF_INET6):
            try:
                found = await self._host.dump(partial(tcp_diag.connected_sockets, family=family), tcp_diag.decode)
            except OSError as error:
                log.warning("connections to the outside can't be listed", error=error.strerror)
                return []
            inodes.update({each.cookie: each.inode for each in found if each.inode})
        for cookie in known:
            if cookie not in inodes:
                self._made.pop(cookie, None)
        return [evolve(each, inodes=(inodes[cookie], 0)) for cookie, each in self._made.items() if cookie in inodes]


def _address(name: tuple[str, int]) -> tuple[Address, int]:
    ip = ip_address(name[0])
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    return mapped or ip, name[1]
