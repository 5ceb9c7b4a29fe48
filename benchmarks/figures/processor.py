"""Figure 4: the processor's time for what is moved and connected, of all that take part; a connect's system calls."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial

from benchmarks import costs
from benchmarks.figure import Figure, Row, Stage, Taken
from benchmarks.programs import count_calls
from benchmarks.ways import APPSWITCH, LOOPBACK, UNIX, Ends, Way

SIZES = {"4 KiB": 1 << 12, "64 KiB": 1 << 16}
MOVED = {size: f"a GiB by writes of {name}" for name, size in SIZES.items()}
CONNECTS = "10,000 connects, 8 clients"
CALLS = "system calls of a client for a connect, a read and a close"
COUNTED = (APPSWITCH, UNIX, LOOPBACK)


def take(stage: Stage) -> Taken:
    """By the load, which tells what its client used; the rest is of /proc."""
    seconds, count = str(0.4 * stage.scale), str(max(8, int(5000 * stage.scale)))

    def once(way: Way, row: str, per: Callable[[dict[str, float]], float], *arguments: str) -> dict[str, float]:
        pids = costs.family(way.pids) | costs.softirq_threads()
        before = costs.processor(pids)
        got = json.loads(way.ask(stage.bench.environment, *arguments))
        return {row: (costs.processor(pids) - before + got["cpu"]) / per(got)}

    rows = [(name, _gibibytes, "stream", str(size), seconds) for size, name in MOVED.items()]
    rows.append((CONNECTS, _ten_thousands, "connect", "8", count))
    taken = stage.in_turns(5, [{way.name: partial(once, way, *row) for way in stage.loads} for row in rows])
    counted = [each for each in zip(stage.ends, stage.loads, strict=True) if each[1].name in COUNTED]
    return taken | stage.in_turns(1, [{way.name: partial(_calls, stage, ends, way) for ends, way in counted}])


def _calls(stage: Stage, ends: Ends, way: Way) -> dict[str, float]:
    """Of a client's connect until its close: what more connects make more."""
    load = [*way.client[len(ends.client) :], "connect", "1"]
    few, many = (count_calls(stage.bench, ends, [*load, count])[0] for count in ("100", "600"))
    return {CALLS: (many - few) / 500}


def _gibibytes(got: dict[str, float]) -> float:
    return got["bytes"] / (1 << 30)


def _ten_thousands(got: dict[str, float]) -> float:
    return got["connects"] / 10000


FIGURE = Figure(
    number=4,
    name="processor",
    title="Time of the processor",
    wanted="nothing in numbers.",
    notes="""\
Seconds, user's and system's: of the client, the server, the proxies, AppSwitch's trap handler, and of the kernel's
threads for what the network stack puts off (ksoftirqd). A start is not in it.
The system calls are counted with strace, when the client needn't ask any more.""",
    rows=(*(Row(name, "s", "seconds of the processor") for name in (*MOVED.values(), CONNECTS)), Row(CALLS, "")),
    take=take,
    seconds=80,
    needs=("strace",),
)
