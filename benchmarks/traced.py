"""`./dev bench traced`: static programs beside dynamic ones; prints Markdown, keeps the numbers in benchmarks/results/.

The load is linked dynamically (the shim is in it) and statically (it is traced), both ends so, and measured in turns:
the ratios of a round had the same weather. What it costs that a call is trapped is what getsockname takes longer, whose
answer is next to nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from attrs import evolve, frozen

from appswitch.errors import AppSwitchError
from appswitch.host import tracer
from benchmarks import measures, ways
from benchmarks.command import keep, new_parser
from benchmarks.figure import Numbers
from benchmarks.machine import describe
from benchmarks.markdown import spread, table, yes
from benchmarks.measures import Measure, duration
from benchmarks.report import ratios
from benchmarks.ways import APPSWITCH, Bench, Way

SHIM = APPSWITCH
SAME, PTRACE_AT_MOST, NOTIFY_AT_MOST = 1 / 0.95, 6.0, 1.5
CONNECTS_AT_MOST = {tracer.PTRACE: PTRACE_AT_MOST, tracer.NOTIFY: NOTIFY_AT_MOST}
Kept = dict[str, Any]


@frozen
class Row:
    """at_most: how many times as good the shim may be than each tracer; None: nothing is wanted."""

    measure: Measure
    at_most: dict[str, float] | None = None


def rows(seconds: float, count: int) -> list[Row]:
    """How long a stream lasts; how many pings, names and connects there are."""
    data = dict.fromkeys((tracer.PTRACE, tracer.NOTIFY), SAME)
    streams = [
        Row(Measure(f"writes of {name}", "MB/s", ("stream", str(size), str(seconds)), measures.megabytes), data)
        for name, size in (("1 KiB", 1024), ("16 KiB", 16384), ("128 KiB", 131072))
    ]
    connects = [
        row
        for clients, name in ((1, "1 client"), (8, "8 clients"))
        for arguments in [("connect", str(clients), str(count))]
        for row in (
            Row(Measure(f"connects, {name}", "1/s", arguments, measures.connects), CONNECTS_AT_MOST),
            Row(duration(f"a connect, {name}: median", arguments)),
            Row(duration(f"a connect, {name}: 99th of 100", arguments, measures.p99_us)),
        )
    ]
    return [
        *streams,
        Row(duration("1 B there and back", ("ping", "1", str(count))), data),
        Row(duration("getsockname", ("name", "10", str(count // 10)))),
        *connects,
        Row(duration("fork, exec, end", ("start", "1", str(count // 20)))),
    ]


def tracers() -> Iterator[str]:
    """The ways that this machine has."""
    for name in (tracer.PTRACE, tracer.NOTIFY):
        os.environ[tracer.VARIABLE] = name
        try:
            yield tracer.way()
        except AppSwitchError as error:
            print(f"{name} is left out: {error.message}", file=sys.stderr)
        finally:
            del os.environ[tracer.VARIABLE]


@contextmanager
def prepare() -> Iterator[tuple[Bench, list[Way]]]:
    """A trap handler, and a server a way."""
    with tempfile.TemporaryDirectory(prefix="appswitch-bench-") as home, ExitStack() as stack:
        bench = stack.enter_context(ways.prepare(Path(home)))
        static = evolve(bench, load=ways.compile_load(bench.home / "static", "-static"))
        there = [stack.enter_context(ways.loaded(bench, ways.appswitch(bench)))]
        there += [
            stack.enter_context(ways.loaded(static, ways.traced(static, name, f"10.77.9.{i}")))
            for i, name in enumerate(tracers(), start=1)
        ]
        yield bench, there


def take(wanted: list[Row], rounds: int) -> list[Numbers]:
    """Measures all in turns. A client's run serves all rows with its arguments."""
    with prepare() as (bench, there):
        taken: list[Numbers] = [{way.name: [] for way in there} for _ in wanted]
        for turn in range(rounds):
            print(f"round {turn + 1} of {rounds}", file=sys.stderr)
            for arguments in dict.fromkeys(row.measure.arguments for row in wanted):
                for way in there[turn % len(there) :] + there[: turn % len(there)]:  # none is always the first
                    result = json.loads(way.ask(bench.environment, *arguments))
                    for row, numbers in zip(wanted, taken, strict=True):
                        if row.measure.arguments == arguments:
                            numbers[way.name].append(row.measure.number(result))
    return taken


def traps(count: int, rounds: int) -> Numbers:
    """Microseconds of a system call, by each way that the kernel has to trap it (traps.c), a number a round."""
    taken: Numbers = {}
    with tempfile.TemporaryDirectory(prefix="appswitch-bench-") as home:
        program = ways.compile_load(Path(home) / "traps", name="traps")
        for _ in range(rounds):
            said = subprocess.run([program, str(count)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True)
            for name, nanoseconds in json.loads(said.stdout).items():
                taken.setdefault(name, []).append(nanoseconds / 1000)
    return taken


def as_json(row: Row, numbers: Numbers) -> Kept:
    """A row of the table. over_the_shim: how many times as good the shim is, a ratio a round."""
    measure = row.measure
    return {
        "name": measure.name,
        "unit": measure.unit,
        "numbers": numbers,
        "over_the_shim": {way: ratios(measure, numbers, way) for way in numbers if way != SHIM},
        "at_most": row.at_most,
    }


def markdown(kept: Kept) -> str:
    """All that was measured."""
    machine, names = kept["machine"], [way for way in kept["rows"][0]["numbers"] if way != SHIM]
    about = (
        f"Linux {machine['kernel']}, {machine['cpus']} processors; {kept['rounds']} rounds; "
        f"the machine's load at the start was {kept['load'][0]:.1f}."
    )
    lines = [["", "dynamic: the shim", *(f"static: {name}" for name in names),
              *(f"the shim is better by: {name}" for name in names), "wanted"]]  # fmt: skip
    for row in kept["rows"]:
        over = row["over_the_shim"]
        limits = row["at_most"] or {}
        verdicts = [
            f"{name} {limits[name]:.2f}: {yes(median(over[name]) <= limits[name])}" for name in names if name in limits
        ]
        cells = [spread(row["numbers"][way]) for way in (SHIM, *names)]
        lines.append([f"{row['name']}, {row['unit']}", *cells, *(spread(over[name]) for name in names),
                      ", ".join(verdicts)])  # fmt: skip
    costs = [["a call, by the kernel's ways to trap it", "us"]]
    costs += [[name, spread(numbers)] for name, numbers in kept["traps"].items()]
    return "\n\n".join([about, table(lines), *_stops(kept["rows"], names), table(costs)])


def _stops(found: list[Kept], names: list[str]) -> Iterator[str]:
    for row in found:
        if row["name"] == "getsockname":
            for name in names:
                pairs = zip(row["numbers"][name], row["numbers"][SHIM], strict=True)
                yield f"A trapped call by {name} costs {spread([traced - shim for traced, shim in pairs])} us more."


def main() -> None:
    """The command."""
    parser = new_parser("benchmarks.traced", __doc__.split("\n")[0], rounds=13)
    parser.add_argument("--only", default="", metavar="TEXT", help="only measures with TEXT in their name")
    arguments = parser.parse_args()
    if arguments.read:
        print(markdown(json.loads(arguments.read.read_text())))
        return
    scale = 0.1 if arguments.quick else 1.0
    wanted = [row for row in rows(0.5 * scale, int(5000 * scale)) if arguments.only in row.measure.name]
    if not wanted:
        parser.error(f"no measure has {arguments.only!r} in its name")
    load = os.getloadavg()
    taken = take(wanted, arguments.rounds)
    kept = {
        "machine": describe(),
        "load": load,
        "rounds": arguments.rounds,
        "traps": traps(int(20000 * scale), arguments.rounds),
        "rows": [as_json(row, numbers) for row, numbers in zip(wanted, taken, strict=True)],
    }
    print(markdown(kept))
    keep(kept, arguments.results, "traced")


if __name__ == "__main__":
    main()
