"""What is measured with the load: each measure runs a client of a way and makes one number of it."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen


@frozen
class Measure:
    """A row of the table.

    number: from the client's JSON; more_is_better: else less is, and ratios turn round; wanted: how many times as good
    AppSwitch is to be at least, beside the way that the table judges by.
    """

    name: str
    unit: str
    arguments: tuple[str, ...]
    number: Callable[[dict[str, float]], float]
    more_is_better: bool = True
    wanted: float | None = None


def gigabits(result: dict[str, float]) -> float:
    return result["bytes"] / result["seconds"] * 8 / 1e9


def megabytes(result: dict[str, float]) -> float:
    return result["bytes"] / result["seconds"] / 1e6


def median_us(result: dict[str, float]) -> float:
    return result["median"] * 1e6


def p99_us(result: dict[str, float]) -> float:
    return result["p99"] * 1e6


def connects(result: dict[str, float]) -> float:
    return result["connects"] / result["seconds"]


def duration(name: str, arguments: tuple[str, ...], number: Callable[[dict[str, float]], float] = median_us) -> Measure:
    """A row in microseconds: less is better."""
    return Measure(name, "us", arguments, number, more_is_better=False)
