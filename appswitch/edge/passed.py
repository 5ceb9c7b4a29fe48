"""Connections that have gone by lanes, as C tells of them: many at a time, a moment later.

They get their names, and are told of as events, which are put together only for who wants to see them.
"""

from __future__ import annotations

from functools import partial

import trio
from attrs import define, field, frozen

from appswitch.edge.events import Events
from appswitch.edge.tcp_names import Name, TcpNames, facts_of
from appswitch.model import Kind, Listener
from appswitch.wire.lanes import LANE_LASTS, read_entries

SEEN_EVERY = 0.1  # seconds; while somebody looks on
TOLD_EVERY = 1.0


@frozen
class Led:
    """Where a lane leads, and by which rule. until: entries may come, trio's clock."""

    listener: Listener
    rule: str
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
        self._lanes[lane] = Led(listener, rule, now + 2 * LANE_LASTS)

    def take(self, entries: bytes) -> set[int]:
        """The lanes of which there are some."""
        found = set()
        for cookie, number, packed in read_entries(entries):
            found.add(number)
            led = self._lanes.get(number)
            if led is not None:
                name = Name(packed, None, led.listener)
                self.names.put(cookie, name)
                self.events.publish_unmade(Kind.CONNECT, partial(facts_of, name, led.rule))
        return found

    @property
    def is_watched(self) -> bool:
        """Whether somebody wants to see each connection."""
        return self.events.watched(Kind.CONNECT)

    @property
    def pause(self) -> float:
        """How long they may wait to be taken, in seconds."""
        return SEEN_EVERY if self.is_watched else TOLD_EVERY
