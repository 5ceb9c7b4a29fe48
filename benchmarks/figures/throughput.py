"""Figure 1, the paper's Figure 3: what gets through, by the size of a write."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

from benchmarks.figure import Figure, Goal, Row, Stage, Taken
from benchmarks.measures import gigabits
from benchmarks.programs import ask, on_processor, started
from benchmarks.ways import APPSWITCH, BRIDGE, IPERF, LOOPBACK, UNIX, WRAPPER, Ends, run_to_end

SIZES = {
    "64 B": 64,
    "256 B": 256,
    "1 KiB": 1 << 10,
    "4 KiB": 1 << 12,
    "16 KiB": 1 << 14,
    "64 KiB": 1 << 16,
    "256 KiB": 1 << 18,
    "1 MiB": 1 << 20,
}
REAL = {name: f"iperf, writes of {name}" for name in SIZES}
LOAD = {name: f"writes of {name}" for name in SIZES}
LARGE = [name for name in SIZES if SIZES[name] >= 4096]
ACROSS = "bytes a write"


def take(stage: Stage) -> Taken:
    """By iperf in those ways that it can, and the load where a Unix socket is to be beside."""
    real = _iperf(stage)
    beside = [way for way in stage.loads if way.name in (APPSWITCH, UNIX, LOOPBACK, BRIDGE)]
    seconds = str(0.25 * stage.scale)
    groups = [
        {way.name: ask(stage, way, LOAD[name], gigabits, "stream", str(size), seconds) for way in beside}
        for name, size in SIZES.items()
    ]
    return real | stage.in_turns(7, groups)


def _iperf(stage: Stage) -> Taken:
    with ExitStack() as stack:

        def serves(ends: Ends) -> bool:
            command = [*on_processor(last=False), "iperf", "-s", "-p", str(ends.port + IPERF)]
            return started(stage, stack, ends, command, IPERF)

        able = [ends for ends in stage.ends if ends.kind == "tcp" and ends.name != WRAPPER and serves(ends)]

        def once(name: str, ends: Ends) -> dict[str, float]:
            size = str(SIZES[name])
            asked = ["-c", ends.address, "-p", str(ends.at + IPERF), "-l", size, "-t", f"{0.3 * stage.scale:g}"]
            command = [*ends.client, *on_processor(last=True), "iperf", *asked, "-y", "C"]
            said = run_to_end(command, stage.bench.environment)
            return {REAL[name]: int(said.split()[-1].split(",")[-1]) / 1e9}

        return stage.in_turns(5, [{ends.name: partial(once, name, ends) for ends in able} for name in SIZES])


FIGURE = Figure(
    number=1,
    name="throughput",
    title="Throughput by the size of a write",
    wanted=">= 3x the bridge from 4 KiB up and never below it; >= 0.97 of the plain Unix socket everywhere.",
    notes="""\
The paper's Figure 3. iperf 2, as it is, one stream, the server on one processor and the client on the other; the rate
is what has arrived. iperf has no Unix sockets, so what stands beside a plain one is this project's own load
(benchmarks/load.c), one program for all ways.""",
    rows=(
        *(Row(REAL[name], "Gbit/s", "iperf, Gbit/s", size, ACROSS) for name, size in SIZES.items()),
        *(Row(LOAD[name], "Gbit/s", "the load, Gbit/s", size, ACROSS) for name, size in SIZES.items()),
    ),
    take=take,
    goals=(
        Goal("iperf: >= 3x the bridge from 4 KiB up", tuple(REAL[name] for name in LARGE), BRIDGE, at_least=3.0),
        Goal("iperf: never below the bridge", tuple(REAL.values()), BRIDGE, at_least=1.0),
        Goal(">= 0.97 of the plain Unix socket", tuple(LOAD.values()), UNIX, at_least=0.97),
    ),
    needs=("iperf", "taskset"),
    seconds=220,
)
