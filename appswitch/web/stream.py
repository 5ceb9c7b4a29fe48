"""Server-sent events (the HTML standard, 9.2): each event of `observe`, and a word when the state has changed.

It is told what happens as it happens, and no program is slowed down for it: connects by capability, which don't come to
us, are in the state's edges instead (edge/counters.py).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import structlog
import trio
from attrs import define

from appswitch.edge.events import Events, Filter, Subscription
from appswitch.edge.http import Request, Response, Send
from appswitch.errors import AppSwitchError
from appswitch.model import Event, Kind
from appswitch.web.state import State
from appswitch.wire import control

MOST_READERS = 32
HEARTBEAT = 15.0  # seconds
FIRST = b"retry: 2000\n\n"  # milliseconds until a browser comes back

log = structlog.get_logger()


@define
class EventStream:
    """Tells any number of readers, up to MOST_READERS."""

    events: Events
    state: State
    readers: int = 0

    async def answer(self, request: Request) -> Response:
        """AppSwitchError `bad-query`: it isn't as documented."""
        wanted, tail = read_query(request.query)

        async def stream(send: Send) -> None:
            await self._stream(send, wanted, tail)

        if self.readers >= MOST_READERS:
            return Response(503, b"too many read the events already\n", headers=(("Retry-After", "5"),))
        return Response(200, type="text/event-stream", stream=stream)

    async def _stream(self, send: Send, wanted: Filter, tail: int) -> None:
        self.readers += 1
        try:
            with self.events.subscribe(wanted, passive=True) as subscription:
                recent = self.events.recent(wanted)[-tail:] if tail else []
                await send(FIRST + b"".join(map(encode, recent)))
                lock = trio.Lock()

                async def send_whole(data: bytes) -> None:
                    async with lock:
                        await send(data)

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._tell_changes, send_whole)
                    nursery.start_soon(_keep_alive, send_whole)
                    await _tell_events(subscription, send_whole)
                    nursery.cancel_scope.cancel()
        finally:
            self.readers -= 1

    async def _tell_changes(self, send: Send) -> None:
        told = None
        while True:
            await self.state.json()
            if self.state.version != told:
                told = self.state.version
                await send(b'event: state\ndata: {"version":%d}\n\n' % told)
            await trio.sleep(self.state.pause)


async def _tell_events(subscription: Subscription, send: Send) -> None:
    """Until the reader has lost some: it is told so, and comes back if it likes."""
    while True:
        batch = await subscription.batch()
        await send(b"".join(map(encode, batch)))
        lost = sum(each.count or 0 for each in batch if each.kind is Kind.LOST)
        if lost:
            reason = f"{lost} events were lost: this reader is too slow"
            await send(b"event: end\ndata: %b\n\n" % msgspec.json.encode({"reason": reason}))
            log.info("a reader of the events was dropped", lost=lost)
            return


async def _keep_alive(send: Send) -> None:
    while True:
        await trio.sleep(HEARTBEAT)
        await send(b":\n\n")


def encode(event: Event) -> bytes:
    """One event; JSON has no line ends in it."""
    return b"data: %b\n\n" % msgspec.json.encode(control.event_row(event))


def read_query(query: Mapping[str, str]) -> tuple[Filter, int]:
    """kind: kinds with commas, app: as `observe --app`; tail: how many of the recent events come first."""
    try:
        kinds = frozenset(Kind(each) for each in query.get("kind", "").split(",") if each)
        tail = int(query.get("tail", "0"))
        if tail < 0:
            raise ValueError(f"tail is {tail}")
    except ValueError as error:
        raise AppSwitchError("bad-query", str(error), "kind=connect,deny, app=NAME and tail=N are known") from None
    return Filter(kinds, query.get("app") or None), tail
