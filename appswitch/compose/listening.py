"""What the trap handler knows of a project's programs: who listens where, and what is served on other hosts.

Its events (`observe`) say when to look; what there is, `ps` and `services` say. So an event that is lost, or a trap
handler that is started again, is nothing to be afraid of: the next look has everything.
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import trio
from attrs import frozen

from appswitch.compose.project import Endpoint, Listens
from appswitch.host.paths import control_socket

T = TypeVar("T")

LOOK_EVERY = 1.0
"""Seconds."""
TRY_AGAIN = 0.2
"""Seconds, when there is no trap handler."""
EPHEMERAL = 32768
"""From this UDP port on a socket that is bound is a client, as a resolver's, and no service (ip_local_port_range)."""
MOST_BYTES = 1 << 16


@frozen
class Known:
    """node: this host; endpoints: what each `spawn` of this host, by its pid, listens on; names: of what is served;
    exposed: where clients outside find what each `spawn` exposes; has_gateway: whether a node lets them in;
    nodes: all of them.
    """

    node: str
    endpoints: Mapping[int, frozenset[Endpoint]]
    names: frozenset[str]
    exposed: Mapping[int, frozenset[str]]
    has_gateway: bool
    nodes: frozenset[str]

    def fulfils(self, pid: int, health: Listens) -> bool:
        """Whether the app of that `spawn` listens as it should."""
        found = self.endpoints.get(pid, frozenset())
        return health.endpoints <= found if health.endpoints else bool(found)


async def watch(trap: Path, elsewhere: Callable[[], bool]) -> AsyncGenerator[Known, None]:
    """What is known, now and whenever it changes, for ever.

    elsewhere: whether other hosts' services matter. The events are of this host: then it is looked every second, too.
    """
    while True:
        try:
            async with await trio.open_unix_socket(str(control_socket(trap))) as events:
                await _send(events, "observe", follow=True, tail=0, kinds=["app", "app-end", "listen", "close", "node"])
                yield await look(trap)
                data: bytes | bytearray = b"-"
                while data:
                    with trio.move_on_after(LOOK_EVERY if elsewhere() else math.inf):
                        data = await events.receive_some(MOST_BYTES)
                    yield await look(trap)
        except (OSError, trio.BrokenResourceError, ValueError, KeyError):  # it goes, or has gone
            pass
        await trio.sleep(TRY_AGAIN)


async def look(trap: Path) -> Known:
    """What is known now. OSError, BrokenResourceError, ValueError, KeyError: nobody answers as they should."""
    async with await trio.open_unix_socket(str(control_socket(trap))) as stream:
        nodes = await _ask(stream, "nodes")
        node = str(nodes[0]["name"])
        pids = {row["id"]: int(row["pid"]) for row in await _ask(stream, "ps") if row["node"] == node}
        endpoints: dict[int, set[Endpoint]] = {}
        exposed: dict[int, set[str]] = {}
        names = set()
        for row in await _ask(stream, "services"):
            endpoint = int(row["port"]), str(row["proto"])
            if endpoint[1] == "udp" and endpoint[0] >= EPHEMERAL:
                continue
            names.add(str(row["name"]))
            if row["node"] == node and row["app"] in pids:
                endpoints.setdefault(pids[row["app"]], set()).add(endpoint)
                exposed.setdefault(pids[row["app"]], set()).update(row["exposed"])
    has_gateway = any(each["gateway"] for each in nodes)
    everywhere = frozenset(str(each["name"]) for each in nodes)
    return Known(node, _frozen(endpoints), frozenset(names), _frozen(exposed), has_gateway, everywhere)


def _frozen(sets: Mapping[int, set[T]]) -> dict[int, frozenset[T]]:
    return {pid: frozenset(each) for pid, each in sets.items()}


async def _send(stream: trio.SocketStream, call: str, **arguments: object) -> None:
    await stream.send_all(json.dumps({"call": call, **arguments}).encode() + b"\n")


async def _ask(stream: trio.SocketStream, call: str) -> list[dict[str, Any]]:
    await _send(stream, call)
    answer = b""
    while not answer.endswith(b"\n"):
        data = await stream.receive_some(MOST_BYTES)
        if not data:
            raise trio.BrokenResourceError("the trap handler has gone")
        answer += data
    rows: list[dict[str, Any]] = json.loads(answer)["ok"]
    return rows
