"""Numbers beside what was wanted of them."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.figure import Figure, Goal, Row, Stage
from benchmarks.figures import FIGURES
from benchmarks.measures import Measure
from benchmarks.report import figure_tables, ratios, verdict_table, verdicts
from benchmarks.ways import APPSWITCH, BRIDGE, UNIX


def figure(*goals: Goal, rows: tuple[str, ...] = ("fast", "slow")) -> Figure:
    return Figure(1, "one", "One", "much", "", tuple(Row(row, "MB") for row in rows), lambda stage: {}, goals)


def kept(**rows: dict[str, list[float]]) -> dict[str, Any]:
    return {"figures": {"one": {"rows": rows}}}


@pytest.mark.parametrize(
    ("ours", "theirs", "met"),
    [
        ([3.0, 3.0, 9.0], [1.0, 1.0, 1.0], True),
        ([2.9, 9.0, 2.9], [1.0, 1.0, 1.0], False),  # the median counts, not the mean
        ([4.0, 30.0, 90.0], [1.0, 10.0, 30.0], True),  # of ratios within a round
    ],
)
def test_a_ratio_is_judged_by_its_median(ours: list[float], theirs: list[float], met: bool) -> None:
    goal = Goal("3x", ("fast",), BRIDGE, at_least=3.0)
    assert goal.is_met({APPSWITCH: ours, BRIDGE: theirs}) is met


def test_what_is_wanted_at_most() -> None:
    goal = Goal("1.05", ("fast",), UNIX, at_most=1.05)
    assert goal.is_met({APPSWITCH: [1.05], UNIX: [1.0]})
    assert not goal.is_met({APPSWITCH: [1.06], UNIX: [1.0]})


def test_a_difference_and_a_number_by_itself() -> None:
    assert Goal("more", ("fast",), UNIX, "more than", at_most=40.0).is_met({APPSWITCH: [70.0], UNIX: [30.0]})
    assert not Goal("alone", ("fast",), at_most=60.0).is_met({APPSWITCH: [60.1]})


@pytest.mark.parametrize("numbers", [{}, {APPSWITCH: [1.0]}, {APPSWITCH: [], UNIX: []}, {UNIX: [1.0]}])
def test_what_was_not_measured_is_not_met(numbers: dict[str, list[float]]) -> None:
    goal = Goal("something", ("fast",), UNIX, at_most=10.0)
    assert not goal.is_met(numbers)
    (verdict,) = verdicts([figure(goal)], kept(fast=numbers))
    assert not verdict.met
    assert verdict.measured == "not measured"


def test_a_goal_of_several_rows_is_met_by_all_and_shows_the_worst() -> None:
    both = {"fast": {APPSWITCH: [4.0], UNIX: [1.0]}, "slow": {APPSWITCH: [2.0], UNIX: [1.0]}}
    least, most = (Goal("l", tuple(both), UNIX, at_least=3.0), Goal("m", tuple(both), UNIX, at_most=5.0))
    missed, met = verdicts([figure(least, most)], kept(**both))
    assert (missed.met, met.met) == (False, True)
    assert missed.measured == "2.00 [2.00, 2.00] (slow); 1 of 2 reach it"
    assert met.measured == "4.00 [4.00, 4.00] (fast); 2 of 2 reach it"
    said = verdict_table([missed, met])
    assert said.count("**missed**") == 1
    assert said.splitlines()[3].endswith("| met |")


def test_a_figure_without_numbers_is_missed() -> None:
    (verdict,) = verdicts([figure(Goal("g", ("fast",), at_least=1))], {"figures": {}})
    assert not verdict.met


def test_rows_with_the_same_ways_share_a_table() -> None:
    goal = Goal("g", ("fast",), UNIX, at_least=1)
    rows = {"fast": {APPSWITCH: [4.0, 6.0], UNIX: [2.0, 2.0]}, "slow": {APPSWITCH: [1.0]}}
    first, second = figure_tables(figure(goal), kept(**rows))
    assert first.splitlines()[0] == "|  | AppSwitch | Unix socket | AppSwitch : Unix socket |"
    assert first.splitlines()[2] == "| fast, MB | 5.00 [3.50, 6.50] | 2.00 [2.00, 2.00] | 2.50 [1.75, 3.25] |"
    assert second.splitlines()[2] == "| slow, MB | 1.00 [1.00, 1.00] |"


def test_a_ratio_of_a_measure_is_greater_where_appswitch_is_better() -> None:
    numbers = {APPSWITCH: [2.0], UNIX: [4.0]}
    assert ratios(Measure("rate", "1/s", (), lambda got: 0.0), numbers, UNIX) == [0.5]
    assert ratios(Measure("time", "s", (), lambda got: 0.0, more_is_better=False), numbers, UNIX) == [2.0]


def test_goals_are_of_rows_that_there_are() -> None:
    for each in FIGURES:
        names = [row.name for row in each.rows]
        assert len(set(names)) == len(names)
        for goal in each.goals:
            assert set(goal.rows) <= set(names), goal
            assert goal.at_least > float("-inf") or goal.at_most < float("inf"), goal


# --- in turns


def stage(rounds: int | None = None) -> Stage:
    return Stage(bench=None, scale=1.0, rounds=rounds)  # type: ignore[arg-type]


def test_each_round_another_way_begins() -> None:
    order: list[str] = []

    def way(name: str) -> dict[str, float]:
        order.append(name)
        return {"row": 1.0}

    taken = stage().in_turns(2, [{"a": lambda: way("a"), "b": lambda: way("b")}])
    assert order == ["a", "b", "b", "a"]
    assert taken == {"row": {"a": [1.0, 1.0], "b": [1.0, 1.0]}}


def test_a_way_that_fails_is_left_out_and_said() -> None:
    calls = iter(range(9))

    def fails_later() -> dict[str, float]:
        if next(calls) == 1:
            raise RuntimeError("no more of that")
        return {"row": 2.0}

    here = stage(rounds=3)
    assert here.in_turns(9, [{"a": lambda: {"row": 1.0}, "b": fails_later}]) == {"row": {"a": [1.0] * 3}}
    assert here.left_out == ["b: no more of that"]
    assert next(calls) == 2


def test_no_more_rounds_when_the_time_is_up() -> None:
    here = stage()
    here.until = 0.0
    assert here.in_turns(9, [{"a": lambda: {"row": 1.0}}]) == {"row": {"a": [1.0] * 3}}
