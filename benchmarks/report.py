"""Numbers beside numbers. A ratio is taken within a round, where both sides had the same weather."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from attrs import frozen

from benchmarks.figure import Figure, Goal, Numbers, Row, Taken
from benchmarks.markdown import spread, table
from benchmarks.measures import Measure
from benchmarks.ways import APPSWITCH

Kept = dict[str, Any]
"""As JSON: of a run, {"machine": ..., "figures": {name: {"when", "load", "seconds", "rows": Taken, "left_out"}}}."""


def ratios(measure: Measure, numbers: Numbers, than: str) -> list[float]:
    """How many times as good AppSwitch is, a ratio a round; more than 1 is better."""
    pairs = zip(numbers[APPSWITCH], numbers[than], strict=True)
    return [ours / theirs if measure.more_is_better else theirs / ours for ours, theirs in pairs]


@frozen
class Verdict:
    """Of a goal. measured: its worst row, in words."""

    figure: Figure
    goal: Goal
    met: bool
    measured: str

    @property
    def key(self) -> str:
        """Of its reason in reasons.toml."""
        return f"{self.figure.name}: {self.goal.wanted}"


def verdicts(figures: Sequence[Figure], kept: Kept) -> list[Verdict]:
    """Of all goals, in the figures' order."""
    return [_judge(each, goal, _taken(each, kept)) for each in figures for goal in each.goals]


def _taken(figure: Figure, kept: Kept) -> Taken:
    rows: Taken = kept["figures"].get(figure.name, {}).get("rows", {})
    return rows


def _judge(figure: Figure, goal: Goal, taken: Taken) -> Verdict:
    met = [row for row in goal.rows if goal.is_met(taken.get(row, {}))]
    worst = goal.worst(taken)
    values = goal.values(taken.get(worst, {}))
    many = len(goal.rows) > 1
    shown = spread(values) if values else "not measured"
    measured = f"{shown} ({worst}); {len(met)} of {len(goal.rows)} reach it" if many else shown
    return Verdict(figure, goal, len(met) == len(goal.rows), measured)


def verdict_table(found: Sequence[Verdict]) -> str:
    """A line a goal."""
    lines = [["figure", "wanted", "measured (the worst row)", ""]]
    for each in found:
        told = "met" if each.met else "**missed**"
        lines.append([f"{each.figure.number}. {each.figure.title}", each.goal.wanted, each.measured, told])
    return table(lines)


def figure_tables(figure: Figure, kept: Kept) -> list[str]:
    """A line a row: of every way the median and quartiles, and the ratios that goals are of. A table for those rows
    that have the same ways.
    """
    taken = _taken(figure, kept)
    there = [row for row in figure.rows if taken.get(row.name)]
    beside = {(goal.way, goal.how, goal.beside): goal for goal in figure.goals if goal.beside}
    parts = groupby(there, key=lambda row: list(taken[row.name]))
    return [_figure_table(list(rows), taken, list(beside.values())) for _, rows in parts]


def _figure_table(rows: list[Row], taken: Taken, goals: list[Goal]) -> str:
    ways = list(taken[rows[0].name])
    goals = [goal for goal in goals if goal.way in ways and goal.beside in ways]
    signs = {"times": ":", "more than": "-"}
    lines = [["", *ways, *(f"{goal.way} {signs[goal.how]} {goal.beside}" for goal in goals)]]
    for row in rows:
        numbers = taken[row.name]
        name = f"{row.name}, {row.unit}" if row.unit else row.name
        cells = [*(numbers[way] for way in ways), *(goal.values(numbers) for goal in goals)]
        lines.append([name, *map(spread, cells)])
    return table(lines)
