"""The state that the map shows, as one JSON object.

It is made when somebody asks, at most once in a while: all who ask meanwhile get the same. With many connections that
takes its time, so the while is a multiple of what the last one took.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec
import trio
from attrs import define, field

from appswitch.core.traffic import Edge, End, Traffic
from appswitch.edge.http import Request
from appswitch.edge.questions import Questions, Row, rows
from appswitch.model import Connection
from appswitch.wire import control

AT_LEAST = 1.0  # seconds between two
SHARE = 0.1  # of our time, at most
MOST_CONNECTIONS = 1000  # that are listed; edges count all


def flow_row(edge: Edge) -> Row:
    """An edge (docs/metrics.md)."""
    return {
        "client": _end_row(edge.key.client),
        "server": {**_end_row(edge.key.server), "port": edge.key.port},
        "proto": edge.key.proto,
        "medium": edge.medium,
        "connects": edge.connects,
        "rate": round(edge.rate, 2),
        "open": edge.open,
        "denied": edge.denied,
        "denied_rate": round(edge.denied_rate, 2),
        "refused": edge.refused,
        "rule": edge.rule,
        "last": edge.last,
    }


def _end_row(end: End) -> Row:
    return {"name": end.name, "ip": end.ip and str(end.ip), "node": end.node, "app": end.app}


@define
class State:
    """clock: seconds since 1970."""

    questions: Questions
    traffic: Traffic
    clock: Callable[[], float] = time.time
    before: Callable[[], None] = lambda: None
    """Called before edges are read."""
    version: int = field(factory=lambda: time.time_ns() // 1_000_000)
    """Grows whenever something is other than before; no earlier server at this address had it."""
    pause: float = AT_LEAST
    """Seconds after which it is worth asking again."""
    _body: bytes = b""
    _json: bytes = b""
    _until: float = float("-inf")
    _making: trio.Lock = field(factory=trio.Lock)

    async def json(self, _request: Request | None = None) -> bytes:
        """As of now, or of a moment ago."""
        async with self._making:
            began = trio.current_time()
            if began >= self._until:
                await self._make()
                took = trio.current_time() - began
                self.pause = max(AT_LEAST, took / SHARE)
                self._until = trio.current_time() + self.pause - took
            return self._json

    async def _make(self) -> None:
        asked = self.questions
        connections = await asked.snapshot()
        state = {
            "apps": await asked.ps(),
            "services": await asked.services(),
            "nodes": asked.list_nodes(),
            "connections": await rows(connections[:MOST_CONNECTIONS], control.connection_row),
            "connections_total": len(connections),
            "externals": await asked.list_externals(),
            "flows": await self._flows(connections),
        }
        body = msgspec.json.encode(state)
        if body != self._body:
            self.version += 1
            self._body = body
        head = msgspec.json.encode({"node": asked.nodes.own.name, "version": self.version})
        self._json = b"%b,%b" % (head[:-1], body[1:])

    async def _flows(self, connections: list[Connection]) -> list[Row]:
        self.before()
        return await rows(self.traffic.edges(self.clock(), connections, self._lives), flow_row)

    def _lives(self, end: End) -> bool:
        table = self.questions.table
        if end.node is None or end.app is None:
            return True
        return table.app_of(end.node, end.app) is not None
