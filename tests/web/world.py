"""What there is to be shown, without a server."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

from appswitch.core.service_table import ServiceTable
from appswitch.core.traffic import Traffic
from appswitch.edge.apps import Apps
from appswitch.edge.epoch import Epoch
from appswitch.edge.events import Events
from appswitch.edge.externals import Externals
from appswitch.edge.healths import GatewayHealths
from appswitch.edge.http import Request
from appswitch.edge.listeners import ListenerSockets
from appswitch.edge.nodes import OneNode
from appswitch.edge.questions import Questions
from appswitch.model import App, Connection, Kind, Listener, Node

ANY = IPv4Address("0.0.0.0")


class World:
    """A client and a server on one host. clock: what time it is."""

    def __init__(self, directory: Path) -> None:
        self.clock = 1000.0
        self.table = ServiceTable("n1")
        self.events = Events("n1", clock=lambda: self.clock)
        self._sockets, self._epoch = ListenerSockets(directory / "listeners"), Epoch()
        self.apps = Apps(self.table, self._sockets, self._epoch, self.events)
        externals = Externals(self.apps, None, GatewayHealths("n1", None))
        self.connections: list[Connection] = []
        self.snapshots = 0
        self.questions = Questions(self.apps, OneNode(Node("n1")), self.snapshot, externals)
        self.traffic = Traffic()
        self.web, self.db = (self.table.new_app(name=name, ip=None) for name in ("web", "db"))
        self.listener = Listener(self.table.next_listener_id(), self.db, 4, ANY, 5432, listening=True)
        self.table.add_listener(self.listener)

    async def snapshot(self) -> list[Connection]:
        self.snapshots += 1
        return self.connections

    def publish(self, kind: Kind, app: App | None = None, **facts: object) -> None:
        """An event of the client's, at the server."""
        known = {"server": self.db, "address": self.db.ip, "port": 5432, "proto": "tcp", "medium": "unix", **facts}
        self.events.publish(kind, app or self.web, **known)

    def close(self) -> None:
        self._sockets.close()
        self._epoch.close()


def get(path: str, query: dict[str, str] | None = None, **headers: str) -> Request:
    """A request as a browser of this host makes it."""
    return Request("GET", path, query or {}, {"host": "localhost:8080", **headers})
