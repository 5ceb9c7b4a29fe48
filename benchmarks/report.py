"""The numbers as a table and as JSON. A ratio is taken within a round, where both sides had the same weather."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from statistics import median, quantiles
from typing import Any

from benchmarks.measures import Measure
from benchmarks.ways import APPSWITCH, BRIDGE, UNIX

Numbers = dict[str, list[float]]  # way -> a number a round

START_UP_WANTED = 80.0  # milliseconds


def ratios(measure: Measure, numbers: Numbers, than: str) -> list[float]:
    """How many times as good AppSwitch is, a ratio a round; more than 1 is better."""
    pairs = zip(numbers[APPSWITCH], numbers[than], strict=True)
    return [ours / theirs if measure.more_is_better else theirs / ours for ours, theirs in pairs]


def table(results: Sequence[tuple[Measure, Numbers]], ways: Sequence[str]) -> str:
    """The median of every way, and AppSwitch's ratios: median, and [first, third quartile] of the rounds."""
    compared = [way for way in (UNIX, BRIDGE) if way in ways]
    lines = [["", *ways, *(f"AppSwitch : {way}" for way in compared), "wanted"]]
    for measure, numbers in results:
        cells = [f"{measure.name}, {measure.unit}", *(_number(median(numbers[way])) for way in ways)]
        cells += [_spread(ratios(measure, numbers, way)) for way in compared]
        lines.append([*cells, _verdict(measure, numbers)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if 0 < column < len(widths) - 1 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def start_up_line(times: Numbers) -> str:
    """What `spawn` costs before its program runs."""
    extra = _extra(times)
    verdict = "yes" if extra <= START_UP_WANTED else "NO"
    shown = ", ".join(f"`{name}` {median(each):.1f} ms" for name, each in times.items())
    return f"start-up: {shown}: {extra:.1f} ms more (at most {START_UP_WANTED:.0f}: {verdict})"


def as_json(results: Sequence[tuple[Measure, Numbers]], times: Numbers, rounds: int) -> dict[str, Any]:
    """Everything, for a later look."""
    return {
        "machine": {"kernel": platform.release(), "cpus": os.cpu_count(), "python": platform.python_version()},
        "rounds": rounds,
        "measures": [
            {
                "name": measure.name,
                "unit": measure.unit,
                "more_is_better": measure.more_is_better,
                "numbers": numbers,
                "medians": {way: median(each) for way, each in numbers.items()},
                "ratios": {way: median(ratios(measure, numbers, way)) for way in numbers if way != APPSWITCH},
            }
            for measure, numbers in results
        ],
        "start_up": {"unit": "ms", "numbers": times, "extra": _extra(times)},
    }


def _extra(times: Numbers) -> float:
    return median(times["spawn true"]) - median(times["true"])


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def _spread(values: list[float]) -> str:
    low, _, high = quantiles(values, n=4) if len(values) > 1 else values * 3
    return f"{median(values):.2f} [{low:.2f}, {high:.2f}]"


def _verdict(measure: Measure, numbers: Numbers) -> str:
    wanted = measure.wanted
    if wanted is None or wanted.than not in numbers:
        return "-"
    reached = median(ratios(measure, numbers, wanted.than)) >= wanted.ratio
    return f"{wanted.ratio:.2f} of {wanted.than}: {'yes' if reached else 'NO'}"
