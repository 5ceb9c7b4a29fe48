"""What is measured with the load: each measure runs a client of a way and makes one number of it."""

from __future__ import annotations

import json
from collections.abc import Callable

from attrs import frozen

from benchmarks.ways import Bench, Way


@frozen
class Wanted:
    """AppSwitch is to be at least this good beside that way."""

    than: str
    ratio: float


@frozen
class Measure:
    """A row of the table. number: from the client's JSON; more_is_better: else less is, and ratios turn round."""

    name: str
    unit: str
    arguments: tuple[str, ...]
    number: Callable[[dict[str, float]], float]
    more_is_better: bool = True
    wanted: Wanted | None = None

    def take(self, bench: Bench, way: Way) -> float:
        """Measures once."""
        return self.number(json.loads(way.ask(bench.environment, *self.arguments)))


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
