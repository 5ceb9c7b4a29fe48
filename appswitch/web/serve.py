"""`serve --http`, put together."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import trio

from appswitch.core.traffic import Traffic
from appswitch.edge.calls import Calls
from appswitch.edge.counters import Counters
from appswitch.edge.http import HttpServer
from appswitch.edge.questions import Questions
from appswitch.edge.traps import TrapHandler
from appswitch.host.succession import Handed, Successor
from appswitch.model import App, Event, Kind, Listener
from appswitch.web.door import Door
from appswitch.web.metrics import CountedCalls, Metrics
from appswitch.web.pages import Pages
from appswitch.web.site import Site, json_page, static
from appswitch.web.state import State
from appswitch.web.stream import EventStream

LOOK_EVERY = 1.0  # seconds; at the counters, for rates to be right


class Face:
    """One host's. The port is there from the beginning, since it may be taken."""

    def __init__(self, place: str, state_dir: Path, handed: Handed, successor: Successor) -> None:
        """place: ADDR:PORT. AppSwitchError: it can't be had."""
        self._door = Door(place, state_dir, handed)
        successor.offered.append(self._door.listening.fileno())

    def begin(
        self, questions: Questions, handler: TrapHandler, calls: Calls, obstacle: Callable[[], str | None]
    ) -> None:
        """From now on things are counted. calls: that `handler` answers by; obstacle: why this host doesn't serve as it
        should; None: it does.
        """
        self._traffic = Traffic()
        self._counters = Counters(questions.table, self._count)
        self._metrics = metrics = Metrics(questions, self._counters.collect)
        calls.counters = self._counters
        handler.calls = CountedCalls(calls, metrics)
        events = questions.apps.events
        events.taps += [self._traffic.note, metrics.note, self._note_end]
        state = State(questions, self._traffic, before=self._counters.collect)
        stream, pages = EventStream(events, state), Pages(questions, obstacle)
        self._site = Site(
            self._door.access,
            {
                "/": static,
                "/static/": static,
                "/healthz": pages.health,
                "/metrics": metrics.page,
                "/api/state": json_page(state.json),
                "/api/events": stream.answer,
                "/api/why": json_page(pages.why),
                "/api/app/": json_page(pages.app),
            },
        )

    async def run(self) -> None:
        """For ever."""
        self._door.announce()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(HttpServer(self._site.answer).serve, self._door.listening)
            while True:
                self._counters.collect()
                await trio.sleep(LOOK_EVERY)

    def close(self) -> None:
        self._door.close()

    def _note_end(self, event: Event) -> None:
        if event.kind is Kind.APP_END and event.app is not None:
            self._counters.forget(event.app)

    def _count(self, client: App, listener: Listener | None, count: int) -> None:
        self._metrics.count_connects(count)
        if listener is not None:
            self._traffic.count(client, listener.app, listener.port, count, time.time())
