"""What the service manager is told of us (host/systemd.py): that we serve, how it goes, and that we are alive."""

from __future__ import annotations

import math

import trio

from appswitch.edge.apps import Apps
from appswitch.edge.nodes import Nodes
from appswitch.host.systemd import Manager
from appswitch.model import NodeState

JOINED_WITHIN = 15.0  # seconds; a host serves its own programs however long the others stay away
PAUSE = 0.5  # seconds at least between two messages


async def keep_told(manager: Manager, apps: Apps, nodes: Nodes) -> None:
    """Says that we are ready once the hosts have the same tables, or don't within JOINED_WITHIN; then goes on."""
    if not manager.listens:
        return
    agreed = False
    with trio.move_on_after(JOINED_WITHIN):
        await nodes.until_agreed()
        agreed = True
    told = _describe(apps, nodes) + ("" if agreed else f"; {nodes.obstacle}")
    manager.ready(told)
    most = manager.watchdog / 2 if manager.watchdog else math.inf
    while True:
        with trio.move_on_after(most):
            await apps.changed()
            await trio.sleep(PAUSE)
        if manager.watchdog:
            manager.alive()
        if (status := _describe(apps, nodes)) != told:
            told = status
            manager.status(status)


def _describe(apps: Apps, nodes: Nodes) -> str:
    alive = sum(each.node.state is NodeState.ALIVE for each in nodes.standings())
    count = sum(1 for _ in apps.table.own_apps())
    hosts = f", {alive} hosts" if alive > 1 else ""
    return f"{nodes.own.name}: {count} app{'s' * (count != 1)}{hosts}"
