"""The connected UDP sockets among the connections (edge/connections.py).

A client's connected socket is placed in its server's namespace, under the client's address (edge/datagrams.py). So the
kernel is asked in each namespace that has a UDP server; the sockets that we have made have a mark. Where several apps
share the client's address, it isn't known which of them it is.
"""

from __future__ import annotations

from functools import partial

import structlog

from appswitch.core.service_table import ServiceTable
from appswitch.edge.apps import Apps
from appswitch.edge.diag import Diag
from appswitch.model import App, Connection, Protocol, State
from appswitch.wire import inet_diag
from appswitch.wire.inet_diag import Placed

log = structlog.get_logger()


async def placed_connections(apps: Apps) -> list[Connection]:
    """All connected UDP sockets of apps: a source for Connections."""
    serving = {each.app.id for each in apps.table.own_listeners() if each.protocol is Protocol.UDP}
    found = []
    for app_id in serving:
        namespace, server = apps.namespaces.get(app_id), apps.table.apps.get(app_id)
        if namespace is not None and namespace.diag is not None and server is not None:
            found += [_connection(apps.table, each, server) for each in await _placed_in(namespace.diag)]
    return found


async def _placed_in(diag: Diag) -> list[Placed]:
    found: list[Placed] = []
    for family in (inet_diag.AF_INET, inet_diag.AF_INET6):
        try:
            found += await diag.dump(partial(inet_diag.connected_request, family=family), inet_diag.decode_placed)
        except OSError as error:  # no IPv6, say
            log.debug("UDP sockets can't be listed", error=error.strerror)
    return found


def _connection(table: ServiceTable, placed: Placed, server: App) -> Connection:
    source, dest = placed.socket.local, placed.socket.remote
    clients = [app for app in table.apps.values() if source[0] in (app.ip, app.alias)]
    listeners = [each for each in table.at_port(server.ip, dest[1], Protocol.UDP) if each.app.id == server.id]
    return Connection(
        client=clients[0] if len(clients) == 1 else None,
        source=source,
        dest=dest,
        server=server,
        listener=listeners[0] if listeners else None,
        node=server.node,
        state=State.ESTABLISHED,
        proto="udp",
        medium="udp",
        inodes=(placed.inode, 0),
    )
