"""Figure 2: how long a request and its answer take."""

from __future__ import annotations

from benchmarks.figure import Figure, Goal, Row, Stage, Taken
from benchmarks.measures import median_us
from benchmarks.programs import ask
from benchmarks.ways import UNIX

SIZES = {"1 B": 1, "64 B": 64, "1 KiB": 1024}
ROWS = {name: f"{name} there and back" for name in SIZES}


def take(stage: Stage) -> Taken:
    """Medians of many, by the load: `spawn` is still at work during the first milliseconds."""
    count = str(max(50, int(20_000 * stage.scale)))
    groups = [
        {way.name: ask(stage, way, ROWS[name], median_us, "ping", str(size), count) for way in stage.loads}
        for name, size in SIZES.items()
    ]
    return stage.in_turns(7, groups)


FIGURE = Figure(
    number=2,
    name="latency",
    title="Request and response",
    wanted="<= 1.05x the plain Unix socket.",
    notes="""\
One connection, one request at a time, the median of 20,000; both ends share a processor, since what it takes to wake
another one is more than all the rest. The proxies are where the scheduler puts them.""",
    rows=tuple(Row(ROWS[name], "us", "there and back, us", size, "bytes") for name, size in SIZES.items()),
    take=take,
    goals=(Goal("<= 1.05x the plain Unix socket", tuple(ROWS.values()), UNIX, at_most=1.05),),
    seconds=90,
)
