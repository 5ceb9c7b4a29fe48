"""Markdown, of numbers: medians, in brackets the quartiles."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median, quantiles


def table(lines: Sequence[Sequence[str]]) -> str:
    """The first line is the head."""
    head, *rest = ("| " + " | ".join(line) + " |" for line in lines)
    return "\n".join([head, "|---" * len(lines[0]) + "|", *rest])


def spread(values: Sequence[float]) -> str:
    """The median, and [first, third quartile]."""
    low, _, high = quantiles(values, n=4) if len(values) > 1 else list(values) * 3
    return f"{number(median(values))} [{number(low)}, {number(high)}]"


def number(value: float) -> str:
    """Without a fraction, where there is much before it."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def yes(reached: bool) -> str:
    """A NO is to be seen."""
    return "yes" if reached else "NO"
