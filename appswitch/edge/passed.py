"""Connections that have gone by lanes, as C tells of them: many at a time, a moment later.

They get their names, and are told of as events, which are put together only for who wants to see them.
"""

from __future__ import annotations

import trio
from attrs import define, field, frozen

from appswitch.edge.events import Events
from appswitch.edge.tcp_names import TcpNames, WayIn, facts_of
from appswitch.model import Kind, Listener
from appswitch.wire.lanes import LANE_LASTS, read_entries

SEEN_EVERY = 0.1  # seconds; while somebody looks on
TOLD_EVERY = 1.0


@frozen
class Led:
    """Where a lane leads. until: entries may come, trio's clock."""

    way: WayIn
    until: float


@define
class Passed:
    """Of one node: those that have come here, or those that have left here."""

    names: TcpNames
    events: Events
    _lanes: dict[int, Led] = field(factory=dict)

    def opened(self, lane: int, listener: Listener, rule: str) -> None:
        """What it leads to is known as long as something may come of it."""
        now = trio.current_time()
        for number in [number for number, led in self._lanes.items() if led.until < now]:
            del self._lanes[number]
        self._lanes[lane] = Led(WayIn(listener, rule), now + 2 * LANE_LASTS)

    def take(self, entries: bytes) -> set[int]:
        """The lanes of which there are some."""
        rows = list(read_entries(entries))
        found = {number for _, number, _ in rows}
        ways = {number: self._lanes[number].way for number in found if number in self._lanes}
        came = {cookie: (packed, ways[number]) for cookie, number, packed in rows if number in ways}
        self.names.put_all(came)
        self.events.publish_all(Kind.CONNECT, facts_of, list(came.values()))
        return found

    @property
    def is_watched(self) -> bool:
        """Whether somebody wants to see each connection."""
        return self.events.watched(Kind.CONNECT)

    @property
    def pause(self) -> float:
        """How long they may wait to be taken, in seconds."""
        return SEEN_EVERY if self.is_watched else TOLD_EVERY
