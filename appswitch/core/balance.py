"""Which instance of a service a connection goes to.

An app that serves is an instance; sockets that one app has at the same port (SO_REUSEPORT) share its part. Tags of the
app say how: `weight=N` (0 to 256; 1 where none is given) is its part; 0 means none while another instance lives.
`balance=least-connections` on any instance selects that for the service: the instance with the fewest connections for
its weight. Else they take turns by smooth weighted round robin (nginx's): each turn every instance earns its weight,
the richest is chosen and pays what all have earned. So equal weights take turns exactly, 3 to 1 is AABA, and one that
is new has its share from the first turn on.

An instance that refused or had no room is put aside: tried again after a pause that doubles each time it fails, or when
no other one is left. So is a whole node that didn't answer.

Instances on several nodes are of tiers: those of the first one take turns, the others follow in case these fail. Again
a tag on any instance selects it for the service: `prefer=local` (the default: this node's, then the others'),
`prefer=any` (one tier), or `prefer=near` (this node's, then by distance; those within a factor of two are one tier).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import chain
from typing import Any, TypeVar

from appswitch.core.service_table import ServiceTable
from appswitch.errors import AppSwitchError
from appswitch.model import App, Listener, Tag

Who = TypeVar("Who", bound=Hashable)

WEIGHT, BALANCE, PREFER = "weight", "balance", "prefer"
ROUND_ROBIN, LEAST_CONNECTIONS = "round-robin", "least-connections"
LOCAL, ANY, NEAR = "local", "any", "near"
CHOICES = {BALANCE: (ROUND_ROBIN, LEAST_CONNECTIONS), PREFER: (LOCAL, ANY, NEAR)}
MOST_WEIGHT = 256
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 3.0  # seconds that an instance is put aside
FIRST_NODE_PAUSE, LONGEST_NODE_PAUSE = 1.0, 10.0  # a node: each time that it is tried costs some client half a second
NEAREST, FARTHEST = 0.001, 100.0  # seconds of round trip; what is nearer is as near, what is farther as far
UNIT = 2520  # of weight; divisible by the number of sockets that an app is likely to have at a port

_SPARE = 256  # listeners that may be remembered beyond those that there are


def check_tags(tags: Sequence[Tag]) -> None:
    """AppSwitchError `bad-tag` when one of the tags that are read here says something else than they can."""
    weights = [value for key, value in tags if key == WEIGHT]
    if len(weights) > 1:
        raise AppSwitchError("bad-tag", f"{WEIGHT} is given {len(weights)} times", "an instance has one weight")
    for value in weights:
        if not (value.isascii() and value.isdigit() and len(value) < 4 and int(value) <= MOST_WEIGHT):
            raise AppSwitchError(
                "bad-tag", f"{WEIGHT}={value} is no weight", f"0 to {MOST_WEIGHT}, whole; without the tag it is 1"
            )
    for tag, choices in CHOICES.items():
        ways = {value for key, value in tags if key == tag}
        if len(ways) > 1 or not ways <= set(choices):
            hint = f"{', '.join(choices[:-1])} or {choices[-1]}"
            raise AppSwitchError("bad-tag", f"{tag}={','.join(sorted(ways))} is no way to {tag}", hint)


def weight_of(app: App) -> int:
    """What its tag says; 1 where that isn't a number: another node may take other tags than we do."""
    return min(next((int(each) for each in app.values(WEIGHT) if each.isdecimal() and len(each) < 10), 1), MOST_WEIGHT)


def one_round(instances: Sequence[Listener], most: int) -> list[Listener]:
    """Who takes turns in which order until it begins anew; where that is longer, the first `most` turns."""
    parts = _parts(instances)
    turns = sum(parts.values()) // math.gcd(*parts.values())
    rotation = Rotation()
    return [rotation.turn(instances, parts)[0] for _ in range(min(turns, most))]


def by_connections(candidates: Sequence[Listener]) -> bool:
    """Whether this service is balanced by least connections."""
    return any(LEAST_CONNECTIONS in each.app.values(BALANCE) for each in candidates)


def preference(candidates: Sequence[Listener]) -> str:
    """Where this service's instances are looked for first."""
    said = {value for each in candidates for value in each.app.values(PREFER)}
    return next((each for each in (ANY, NEAR) if each in said), LOCAL)


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


class Aside(dict[Who, tuple[float, float]]):
    """Who has failed and is left alone for a while: until when, and how long. first, longest: pauses in seconds."""

    def __init__(self, first: float, longest: float) -> None:
        super().__init__()
        self._first, self._longest = first, longest

    def add(self, who: Who, now: float) -> None:
        """It has failed, perhaps once more."""
        _, pause = self.get(who, (now, self._first / 2))
        pause = min(2 * pause, self._longest)
        self[who] = now + pause, pause

    def until(self, who: Who) -> float:
        """Long ago, if it hasn't failed."""
        return self.get(who, (-math.inf, 0.0))[0]


class Balancer:
    """Knows whose turn it is, and who is put aside; in memory, changed by one task only.

    distance: to a node, in seconds of round trip.
    """

    def __init__(self, table: ServiceTable, distance: Callable[[str], float] = lambda _: 0.0) -> None:
        self.distance = distance
        self._table = table
        self._dialled = Rotation()
        self._granted = Rotation()
        self._aside: Aside[int] = Aside(FIRST_PAUSE, LONGEST_PAUSE)  # by the listener's id
        self._nodes_aside: Aside[str] = Aside(FIRST_NODE_PAUSE, LONGEST_NODE_PAUSE)

    def order(
        self, candidates: Sequence[Listener], now: float, connections: Mapping[int, int] | None = None
    ) -> list[Listener]:
        """In which order to try them for one connection.

        candidates: at least one; now: seconds, never less than before; connections: listener id -> how many it has,
        where that decides (by_connections).
        """
        self._forget_gone()
        if len(candidates) == 1:
            return list(candidates)
        parts = _parts(candidates)
        sharing = [each for each in candidates if parts[each.id]]
        aside = sorted((each for each in sharing if now < self._until(each)), key=self._until)
        first, *others = self._tiers([each for each in sharing if now >= self._until(each)])
        if first:
            first = self._dialled.turn(first, parts)
            if connections is not None:
                first.sort(key=lambda each: (connections.get(each.id, 0) + 1) / parts[each.id])
        return [*first, *chain(*others), *aside, *(each for each in candidates if not parts[each.id])]

    def shares(self, instances: Sequence[Listener]) -> list[tuple[Listener, int, int]]:
        """For turns that are taken elsewhere (shim/gateway/door.c): each with its part, and what it has earned."""
        parts = _parts(instances)
        return [(each, parts[each.id], self._dialled.credit.get(each.id, 0)) for each in instances]

    def settle(self, earned: Mapping[int, int]) -> None:
        """After these turns. earned: by the listener's id."""
        self._dialled.credit |= earned
        self._forget_gone()

    def first_tier(self, candidates: Sequence[Listener]) -> list[Listener]:
        """Those that take turns while none is put aside."""
        if len(candidates) == 1:
            return list(candidates)
        parts = _parts(candidates)
        return self._tiers([each for each in candidates if parts[each.id]])[0]

    def _tiers(self, candidates: Sequence[Listener]) -> list[list[Listener]]:
        """At least one, in their order."""
        prefer = preference(candidates)
        tiers: dict[int, list[Listener]] = {}
        for each in candidates:
            tiers.setdefault(self._tier(each, prefer), []).append(each)
        return [tiers[number] for number in sorted(tiers)] or [[]]

    def _tier(self, listener: Listener, prefer: str) -> int:
        if prefer == ANY or (self._table.is_local(listener.app) and listener.outside is None):
            return 0
        if prefer == LOCAL or listener.outside is not None:  # on whatever node it was registered
            return 1
        distance = self.distance(listener.app.node)
        return 1 + math.ceil(math.log2(min(max(distance, NEAREST), FARTHEST) / NEAREST))

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
        self._aside.add(listener.id, now)

    def worked(self, listener: Listener) -> None:
        """It took a connection."""
        self._aside.pop(listener.id, None)

    def node_failed(self, node: str, now: float) -> None:
        """It didn't answer."""
        self._nodes_aside.add(node, now)

    def node_worked(self, node: str) -> None:
        """It has answered."""
        self._nodes_aside.pop(node, None)

    def _until(self, listener: Listener) -> float:
        return max(self._aside.until(listener.id), self._nodes_aside.until(listener.app.node))

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
