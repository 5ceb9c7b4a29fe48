"""The events: what happens, told to whoever wants to know.

Whoever sees something happen publishes it once: it goes to the ring of recent events, to the subscribers and, if it is
rare, to the log. A subscriber that reads too slowly loses events and is told how many; nobody ever waits for one. An
app has so much room in the log: what is over is counted there.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import repeat
from typing import Any, TypeVar

import structlog
import trio
from attrs import frozen

from appswitch.core.service_table import is_called
from appswitch.model import App, Event, Kind
from appswitch.wire import control

RECENT = 1000  # events
ROOM = 4096  # events that wait for a subscriber
UNLOGGED = {Kind.CONNECT, Kind.RESOLVE}  # too many
LOGGED_AT_ONCE, LOGGED_A_SECOND = 100, 10  # of one app
LOG_ROOMS = 4096  # apps, whose latest event is young; of those of other hosts nobody tells the end
UNTOLD = ("time", "kind", "node")  # the log line says it by itself

log = structlog.get_logger()

Thing = TypeVar("Thing")


@frozen
class Filter:
    """What a subscriber wants. kinds: none: all; app: a name, an id or a virtual IP, of either side."""

    kinds: frozenset[Kind] = frozenset()
    app: str | None = None

    def wants(self, kind: Kind) -> bool:
        """Whether it wants any of this kind."""
        return not self.kinds or kind in self.kinds

    def matches(self, event: Event) -> bool:
        """Whether it wants this one."""
        return self.wants(event.kind) and (
            self.app is None or self._is(event.app, event) or self._is(event.server, event)
        )

    def _is(self, app: App | None, event: Event) -> bool:
        return app is not None and self.app is not None and is_called(app, self.app, event.node)


class Subscription:
    """What waits for one subscriber."""

    def __init__(self, wanted: Filter, clock: Callable[[], float], node: str, passive: bool = False) -> None:
        self.wanted = wanted
        self.passive = passive
        self._clock = clock
        self._node = node
        self._waiting: list[Event] = []
        self._lost = 0
        self._ready = trio.Event()

    def offer(self, event: Event) -> None:
        """Never blocks."""
        if not self.wanted.matches(event):
            return
        if len(self._waiting) < ROOM:
            self._waiting.append(event)
            self._ready.set()
        else:
            self._lost += 1

    async def batch(self) -> list[Event]:
        """The next events, in order, all that there are; at least one."""
        await self._ready.wait()
        taken, self._waiting, self._ready = self._waiting, [], trio.Event()
        if self._lost:
            taken.append(Event(self._clock(), Kind.LOST, self._node, count=self._lost))
            self._lost = 0
        return taken


class LogRoom:
    """How much the log has of one app (a token bucket)."""

    def __init__(self, now: float) -> None:
        self.unlogged = 0
        self._left = float(LOGGED_AT_ONCE)
        self._since = now

    def takes(self, now: float) -> bool:
        """One more; or it counts as unlogged."""
        self._left = min(LOGGED_AT_ONCE, self._left + (now - self._since) * LOGGED_A_SECOND)
        self._since = now
        if self._left < 1:
            self.unlogged += 1
            return False
        self._left -= 1
        return True


class Events:
    """The events of one node. clock: seconds since 1970."""

    def __init__(self, node: str, clock: Callable[[], float] = time.time) -> None:
        self._node = node
        self._clock = clock
        self._recent: deque[Event | tuple[Callable[[Any], Event], Any]] = deque(maxlen=RECENT)
        """Some are yet to be made: by what, of what."""
        self._subscriptions: list[Subscription] = []
        self.taps: list[Callable[[Event], None]] = []
        """Called with each event, at once."""
        self._log_rooms: dict[int, LogRoom] = {}
        """By the app's id."""
        self.take: Callable[[], None] = lambda: None
        """Has published what has happened, and is told of a moment later (edge/express.py, edge/lanes_in.py)."""

    def publish(self, kind: Kind, app: App | None = None, **facts: Any) -> None:
        """Something has happened. facts: as model.Event has them."""
        event = Event(self._clock(), kind, self._node, app, **facts)
        self._recent.append(event)
        for each in self._subscriptions:
            each.offer(event)
        for tap in self.taps:
            tap(event)
        if kind not in UNLOGGED and event.source is None:  # of clients outside anybody can make any number
            self._log(event)

    def _log(self, event: Event) -> None:
        app, facts = event.app, {}
        if app is not None:
            now = time.monotonic()
            room = self._log_rooms.pop(app.id, None) or LogRoom(now)
            if event.kind is not Kind.APP_END:
                self._log_rooms[app.id] = room  # the last one is that of the latest event
                if len(self._log_rooms) > LOG_ROOMS:
                    del self._log_rooms[next(iter(self._log_rooms))]
                if not room.takes(now):
                    return
            if room.unlogged:
                facts["unlogged"] = room.unlogged  # before this one
                room.unlogged = 0
        log.info(event.kind.value, **self._told(control.event_row(event)), **facts)

    def publish_all(self, kind: Kind, facts: Callable[[Thing], dict[str, Any]], things: Sequence[Thing]) -> None:
        """As `publish`, what happens ten thousand times a second: it is put together only for who wants to know.

        facts: of each of those things.
        """
        if self.taps or any(each.wanted.wants(kind) for each in self._subscriptions):
            for each in things:
                self.publish(kind, **facts(each))
        else:
            make = partial(self._make, self._clock(), kind, facts)
            self._recent.extend(zip(repeat(make), things[-RECENT:]))

    def _make(self, when: float, kind: Kind, facts: Callable[[Thing], dict[str, Any]], thing: Thing) -> Event:
        return Event(when, kind, self._node, **facts(thing))

    def _told(self, row: dict[str, Any]) -> dict[str, Any]:
        """What the log says: not what doesn't apply, nor which node is ours."""
        told = {key: row[key] for key in row if key not in UNTOLD and row[key] not in (None, [])}
        return {key: told[key] for key in told if not (key.endswith("_node") and told[key] == self._node)}

    def recent(self, wanted: Filter) -> list[Event]:
        """The last ones, oldest first."""
        made = (each if isinstance(each, Event) else each[0](each[1]) for each in self._recent)
        return [each for each in made if wanted.matches(each)]

    @contextmanager
    def subscribe(self, wanted: Filter, *, passive: bool = False) -> Iterator[Subscription]:
        """What happens while inside. passive: nothing need happen otherwise for it (see `watched`)."""
        self.take()
        subscription = Subscription(wanted, self._clock, self._node, passive)
        self._subscriptions.append(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.remove(subscription)

    def watched(self, kind: Kind) -> bool:
        """Whether somebody wants to see every one of this kind."""
        return any(each.wanted.wants(kind) for each in self._subscriptions if not each.passive)
