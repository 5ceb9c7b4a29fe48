"""Connections that have gone by lanes, as C tells of them: many at a time, a moment later.

They get their names, and are told of as events: all of them while somebody wants to see each; else so many as the
recent events have room for, so that nobody pays for what nobody sees.
"""

from __future__ import annotations

import trio
from attrs import define, field, frozen

from appswitch.edge.events import RECENT, Events
from appswitch.edge.tcp_names import Name, TcpNames
from appswitch.model import Kind, Listener
from appswitch.wire.lanes import ENTRY_SIZE, LANE_LASTS, read_entries

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
        first_told = 0 if self.is_watched else len(entries) // ENTRY_SIZE - RECENT
        found = set()
        for count, (cookie, number, packed) in enumerate(read_entries(entries)):
            found.add(number)
            led = self._lanes.get(number)
            if led is not None:
                name = Name(packed, None, led.listener)
                self.names.put(cookie, name)
                if count >= first_told:
                    self._publish(name, led)
        return found

    @property
    def is_watched(self) -> bool:
        """Whether somebody wants to see each connection."""
        return self.events.watched(Kind.CONNECT)

    @property
    def pause(self) -> float:
        """How long they may wait to be taken, in seconds."""
        return SEEN_EVERY if self.is_watched else TOLD_EVERY

    def _publish(self, name: Name, led: Led) -> None:
        source, (ip, port) = name.ends
        self.events.publish(
            Kind.CONNECT, server=led.listener.app, rule=led.rule, address=ip, port=port, proto="tcp", medium="tcp",
            source=source,
        )  # fmt: skip
