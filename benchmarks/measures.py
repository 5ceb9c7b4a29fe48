"""What is measured: each measure runs a client of a way and makes one number of it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable

from attrs import frozen

from benchmarks.ways import BRIDGE, UNIX, Bench, Way


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


def _megabytes_a_second(result: dict[str, float]) -> float:
    return result["bytes"] / result["seconds"] / 1e6


def _microseconds(result: dict[str, float]) -> float:
    return result["median"] * 1e6


def _connects_a_second(result: dict[str, float]) -> float:
    return result["connects"] / result["seconds"]


def all_measures(seconds: float, pings: int, connects: int) -> list[Measure]:
    """The rows, with how long a stream lasts, and how many pings and connects there are."""
    sizes = {"64 B": 64, "1 KiB": 1024, "16 KiB": 16384, "128 KiB": 131072, "1 MiB": 1048576}
    rows = [
        Measure(
            f"writes of {name}",
            "MB/s",
            ("stream", str(size), str(seconds)),
            _megabytes_a_second,
            wanted=Wanted(UNIX, 0.95),
        )
        for name, size in sizes.items()
    ]
    rows += [
        Measure(f"{name} there and back", "us", ("ping", str(size), str(pings)), _microseconds, more_is_better=False)
        for name, size in (("1 B", 1), ("1 KiB", 1024))
    ]
    rows += [
        Measure(
            f"connects, {clients} client{'s' if clients > 1 else ''}",
            "1/s",
            ("connect", str(clients), str(connects)),
            _connects_a_second,
            wanted=Wanted(BRIDGE, 1.0),
        )
        for clients in (1, 8)
    ]
    return rows


def start_up(bench: Bench, count: int) -> dict[str, list[float]]:
    """Milliseconds that `true` takes, alone and under spawn, in turns."""
    commands = {"true": ["true"], "spawn true": [sys.executable, "-m", "appswitch", "spawn", "true"]}
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(count):
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run(command, env=bench.environment, stdin=subprocess.DEVNULL, check=True)
            times[name].append((time.perf_counter() - start) * 1000)
    return times
