"""What a figure is: rows of numbers, what was wanted of them, and how they are taken in turns.

A figure's module (benchmarks/figures/) has one `Figure`: its `take` returns numbers by row and way, `report` compares
them with the goals, `page` writes them down. Goals are in the sources and numbers in the JSON: nobody writes verdicts.
"""

from __future__ import annotations

import operator
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median

from attrs import define, field, frozen

from benchmarks.ways import APPSWITCH, Bench, Ends, Way

Numbers = dict[str, list[float]]
"""Way -> a number a round."""

Taken = dict[str, Numbers]
"""Row's name -> its numbers."""

LEAST = 3  # rounds, however long they take: else there are no quartiles

TIMES: dict[str, Callable[[float, float], float]] = {"times": operator.truediv, "more than": operator.sub}
"""How a number stands beside another of the same round."""


@frozen
class Row:
    """A row of a figure's table. plot: the picture it is in, at `at` on the axis `across`; across "": a bar."""

    name: str
    unit: str
    plot: str = ""
    at: float = 0
    across: str = ""


@frozen
class Goal:
    """What the issue wants of some rows: at_least or at_most, of the median of the number of `way`, or of how it stands
    `beside` another way.
    """

    wanted: str
    rows: tuple[str, ...]
    beside: str = ""
    how: str = "times"
    at_least: float = float("-inf")
    at_most: float = float("inf")
    way: str = APPSWITCH

    def values(self, numbers: Numbers) -> list[float]:
        """A number a round; none where a way wasn't measured."""
        own = numbers.get(self.way, [])
        if not self.beside:
            return own
        return [TIMES[self.how](ours, theirs) for ours, theirs in zip(own, numbers.get(self.beside, []), strict=False)]

    def is_met(self, numbers: Numbers) -> bool:
        """By the median. What wasn't measured isn't met."""
        values = self.values(numbers)
        return bool(values) and self.at_least <= median(values) <= self.at_most

    def worst(self, taken: Taken) -> str:
        """The row that is furthest from it, or the first that wasn't measured."""
        for row in self.rows:
            if not self.values(taken.get(row, {})):
                return row
        middles = {row: median(self.values(taken[row])) for row in self.rows}
        return min(middles, key=lambda row: middles[row] if self.at_most == float("inf") else -middles[row])


@define
class Stage:
    """Where a figure is taken. ends: of each way; loads: the load by each; scale: of the load; rounds: how often, None:
    as each figure needs; until: when no more rounds are begun, by time.monotonic(); left_out: why something is.
    """

    bench: Bench
    scale: float
    ends: list[Ends] = field(factory=list)
    loads: list[Way] = field(factory=list)
    until: float = float("inf")
    rounds: int | None = None
    left_out: list[str] = field(factory=list)

    def in_turns(self, rounds: int, groups: Sequence[Mapping[str, Callable[[], Mapping[str, float]]]]) -> Taken:
        """Runs all of a group's ways, then the next group's, so often; each round another one begins. Less often when
        the time is up.

        groups: way -> what runs it once and returns numbers by row. A way that fails is left out of its group.
        """
        rounds = self.rounds or rounds
        taken: Taken = {}
        failed: set[tuple[int, str]] = set()
        done = 0
        for turn in range(rounds):
            if turn >= LEAST and time.monotonic() > self.until:
                print("  no time for more rounds", file=sys.stderr, flush=True)
                break
            done = turn + 1
            print(f"  round {done} of {rounds}", file=sys.stderr, flush=True)
            for number, group in enumerate(groups):
                names = [name for name in group if (number, name) not in failed]
                start = turn % len(names) if names else 0
                for name in names[start:] + names[:start]:
                    try:
                        found = group[name]()
                    except (OSError, RuntimeError, ValueError, subprocess.SubprocessError) as error:
                        failed.add((number, name))
                        self.leave_out(f"{name}: {error}")
                        continue
                    for row, value in found.items():
                        taken.setdefault(row, {way: [] for way in group})[name].append(value)
        whole = {row: {way: each for way, each in found.items() if len(each) == done} for row, found in taken.items()}
        return {row: numbers for row, numbers in whole.items() if numbers}

    def leave_out(self, why: str) -> None:
        """Says that something isn't measured, here and on the page."""
        print(f"left out: {why}", file=sys.stderr, flush=True)
        self.left_out.append(why)


@frozen
class Figure:
    """title, wanted: for the page, wanted in the issue's words; notes: how it is measured, Markdown;
    goals: what is wanted, of these rows; needs: programs, else none of it is taken; seconds: that it may take, or so.
    """

    number: int
    name: str
    title: str
    wanted: str
    notes: str
    rows: tuple[Row, ...]
    take: Callable[[Stage], Taken]
    goals: tuple[Goal, ...] = ()
    needs: tuple[str, ...] = ()
    seconds: float = 60
    has_ways: bool = True
    """Whether it is of the ways between client and server; else it makes what it needs."""
