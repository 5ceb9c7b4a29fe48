"""Which instance of a service a connection goes to.

An app that serves is an instance; sockets that one app has at the same port (SO_REUSEPORT) share its part. Tags of the
app say how: `weight=N` (0 to 256; 1 where none is given) is its part; 0 means none while another instance lives.
`balance=least-connections` on any instance selects that for the service: the instance with the fewest connections for
its weight. Else they take turns by smooth weighted round robin (nginx's): each turn every instance earns its weight,
the richest is chosen and pays what all have earned. So equal weights take turns exactly, 3 to 1 is AABA, and one that
is new has its share from the first turn on.

An instance that refused or had no room is put aside: tried again after a pause that doubles each time it fails, or when
no other one is left.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from appswitch.core.service_table import ServiceTable
from appswitch.errors import AppSwitchError
from appswitch.model import App, Listener, Tag

WEIGHT, BALANCE = "weight", "balance"
ROUND_ROBIN, LEAST_CONNECTIONS = "round-robin", "least-connections"
MOST_WEIGHT = 256
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 3.0  # seconds that an instance is put aside
UNIT = 2520  # of weight; divisible by the number of sockets that an app is likely to have at a port

_SPARE = 256  # listeners that may be remembered beyond those that there are


def check_tags(tags: Sequence[Tag]) -> None:
    """AppSwitchError `bad-tag` when one of the tags that are read here says something else than they can."""
    weights = [value for key, value in tags if key == WEIGHT]
    ways = {value for key, value in tags if key == BALANCE}
    if len(weights) > 1:
        raise AppSwitchError("bad-tag", f"{WEIGHT} is given {len(weights)} times", "an instance has one weight")
    for value in weights:
        if not (value.isascii() and value.isdigit() and len(value) < 4 and int(value) <= MOST_WEIGHT):
            raise AppSwitchError(
                "bad-tag", f"{WEIGHT}={value} is no weight", f"0 to {MOST_WEIGHT}, whole; without the tag it is 1"
            )
    if len(ways) > 1 or not ways <= {ROUND_ROBIN, LEAST_CONNECTIONS}:
        raise AppSwitchError(
            "bad-tag",
            f"{BALANCE}={','.join(sorted(ways))} is no way to balance",
            f"{ROUND_ROBIN} or {LEAST_CONNECTIONS}",
        )


def weight_of(app: App) -> int:
    """What its tag says."""
    return int(next(iter(app.values(WEIGHT)), "1"))


def by_connections(candidates: Sequence[Listener]) -> bool:
    """Whether this service is balanced by least connections."""
    return any(LEAST_CONNECTIONS in each.app.values(BALANCE) for each in candidates)


Share = tuple[Listener, int]
"""Of the connections that a client makes by itself: an instance and its weight, relative to the others'."""


class Rotation:
    """Smooth weighted round robin. Listeners of any number of services: each belongs to one."""

    def __init__(self) -> None:
        self.credit: dict[int, int] = {}

    def turn(self, candidates: Sequence[Listener], parts: Mapping[int, int]) -> list[Listener]:
        """The order of this turn: its choice, then the others. parts: listener id -> weight."""
        for each in candidates:
            self.credit[each.id] = self.credit.get(each.id, 0) + parts[each.id]
        order = sorted(candidates, key=lambda each: -self.credit[each.id])
        self.credit[order[0].id] -= sum(parts[each.id] for each in candidates)
        return order


class Balancer:
    """Knows whose turn it is, and who is put aside; in memory, changed by one task only."""

    def __init__(self, table: ServiceTable) -> None:
        self._table = table
        self._dialled = Rotation()
        self._granted = Rotation()
        self._aside: dict[int, tuple[float, float]] = {}  # listener id -> (until, the pause)

    def order(
        self, candidates: Sequence[Listener], now: float, connections: Mapping[int, int] | None = None
    ) -> list[Listener]:
        """In which order to try them for one connection.

        candidates: at least one; now: seconds, never less than before; connections: listener id -> how many it has,
        where that decides (by_connections).
        """
        self._forget_gone()
        parts = _parts(candidates)
        sharing = [each for each in candidates if parts[each.id]]
        ready = [each for each in sharing if now >= self._until(each)]
        aside = sorted((each for each in sharing if now < self._until(each)), key=self._until)
        if ready:
            ready = self._dialled.turn(ready, parts)
            if connections is not None:
                ready.sort(key=lambda each: (connections.get(each.id, 0) + 1) / parts[each.id])
        return ready + aside + [each for each in candidates if not parts[each.id]]

    def grant(self, candidates: Sequence[Listener], most: int) -> tuple[list[Share], int]:
        """For a client that connects by itself from now on: at most `most` instances with their weights, and how often
        it may do so before it has to ask again (0: for ever). Where there are more, those are given whose turn it is.
        """
        parts = _parts(candidates)
        sharing = [each for each in candidates if parts[each.id]]
        if len(sharing) <= most:
            unit = math.gcd(*(parts[each.id] for each in sharing))
            return [(each, parts[each.id] // unit) for each in sharing], 0
        chosen: Counter[Listener] = Counter()
        for _ in range(most):
            chosen[self._granted.turn(sharing, parts)[0]] += 1
        return list(chosen.items()), most

    def failed(self, listener: Listener, now: float) -> None:
        """It refused, or had no room."""
        _, pause = self._aside.get(listener.id, (now, FIRST_PAUSE / 2))
        pause = min(2 * pause, LONGEST_PAUSE)
        self._aside[listener.id] = now + pause, pause

    def worked(self, listener: Listener) -> None:
        """It took a connection."""
        self._aside.pop(listener.id, None)

    def _until(self, listener: Listener) -> float:
        return self._aside.get(listener.id, (0.0, 0.0))[0]

    def _forget_gone(self) -> None:
        there = self._table.listeners
        memories: list[dict[int, Any]] = [self._dialled.credit, self._granted.credit, self._aside]
        for memory in memories:
            if len(memory) > len(there) + _SPARE:
                for gone in memory.keys() - there.keys():
                    del memory[gone]


def _parts(candidates: Sequence[Listener]) -> dict[int, int]:
    """Listener id -> its part; where nobody has one, all have the same."""
    sockets = Counter(each.app.id for each in candidates)
    parts = {each.id: weight_of(each.app) * UNIT // sockets[each.app.id] for each in candidates}
    return parts if any(parts.values()) else dict.fromkeys(parts, 1)
