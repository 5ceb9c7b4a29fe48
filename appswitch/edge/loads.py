"""How many connections each listener has, for services that are balanced by it.

The kernel is asked, yet not for every connect: an answer holds for a while, in which what we dial is added. A connect
waits for a new answer only as long as a few connections take; with many, it goes by the last one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from math import inf

import trio

from appswitch.model import Connection, Listener

HOLDS = 10  # times as long as the asking took: it costs a tenth of our time at most
WAIT = 0.02  # seconds


class Loads:
    """snapshot: all connections of apps."""

    def __init__(self, snapshot: Callable[[], Awaitable[list[Connection]]]) -> None:
        self._snapshot = snapshot
        self._counted: Counter[int] = Counter()
        self._dialled: Counter[int] = Counter()
        self._good_until = -inf
        self._wanted = trio.Event()
        self._counted_anew = trio.Event()

    async def now(self) -> Mapping[int, int]:
        """Listener id -> its connections."""
        if trio.current_time() >= self._good_until:
            self._wanted.set()
            with trio.move_on_after(WAIT):
                await self._counted_anew.wait()
        return self._counted + self._dialled

    def dialled(self, listener: Listener) -> None:
        """One more, of a service that is balanced so."""
        self._dialled[listener.id] += 1

    async def keep(self) -> None:
        """Counts for ever, when somebody wants to know."""
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            start, before = trio.current_time(), self._dialled.copy()
            found = await self._snapshot()
            self._counted = Counter(each.listener.id for each in found if each.listener is not None)
            self._dialled -= before  # those that were dialled meanwhile may count twice until the next time
            end = trio.current_time()
            self._good_until = end + HOLDS * (end - start)
            self._counted_anew.set()
            self._counted_anew = trio.Event()
