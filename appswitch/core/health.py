"""Whether backends answer: what a gateway knows by connecting to each of them at intervals.

One that has failed is tried again after a pause that doubles each time it fails (core/balance.py: Aside). What a
program's own connect comes to counts, too.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

from appswitch.core.balance import Aside
from appswitch.model import Health, HealthState

INTERVAL = 5.0  # seconds between two looks at one that answers
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds until one that doesn't is tried again

Who = TypeVar("Who", bound=Hashable)


class Healths(Generic[Who]):
    """Of the backends of one gateway. Times are seconds, never less than before."""

    def __init__(self) -> None:
        self._known: dict[Who, Health] = {}
        self._aside: Aside[Who] = Aside(FIRST_PAUSE, LONGEST_PAUSE)

    def of(self, who: Who) -> Health:
        """What is known of it."""
        return self._known.get(who, Health())

    def known(self) -> dict[Who, Health]:
        """Of all that have been tried."""
        return dict(self._known)

    def is_down(self, who: Who) -> bool:
        """Whether it didn't answer when it was tried last."""
        return self.of(who).state is HealthState.DOWN

    def worked(self, who: Who, now: float) -> bool:
        """It has answered; True when it didn't before."""
        was = self.of(who)
        self._known[who] = Health(HealthState.UP, now)
        self._aside.pop(who, None)
        return was.state is not HealthState.UP

    def failed(self, who: Who, reason: str, now: float) -> bool:
        """It hasn't; True when it did before, or nothing was known."""
        was = self.of(who)
        self._known[who] = Health(HealthState.DOWN, now, reason)
        self._aside.add(who, now)
        return was.state is not HealthState.DOWN

    def due(self, there: Iterable[Who], now: float) -> list[Who]:
        """Which of them are to be tried now. there: all that there are; the others are forgotten."""
        there = list(there)
        for gone in self._known.keys() - set(there):
            del self._known[gone]
            self._aside.pop(gone, None)
        return [each for each in there if self._due_at(each) <= now]

    def _due_at(self, who: Who) -> float:
        known = self.of(who)
        if known.since is None:
            return float("-inf")
        return known.since + INTERVAL if known.state is HealthState.UP else self._aside.until(who)
