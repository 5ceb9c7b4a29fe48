"""The numbers as JSON, and as Markdown. A ratio is taken within a round, where both sides had the same weather."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from benchmarks.figure import Numbers
from benchmarks.hosts.traffic import HAPROXY, PLAIN
from benchmarks.markdown import number, spread, table, yes
from benchmarks.measures import Measure
from benchmarks.report import ratios
from benchmarks.ways import APPSWITCH

Kept = dict[str, Any]

REACHED_WANTED = 500.0  # milliseconds, the 99th of a hundred
SLOWEST_WANTED = 1.0  # seconds


def traffic_as_json(results: Sequence[tuple[Measure, Numbers]]) -> list[Kept]:
    """A row of the table each."""
    return [
        {
            "name": measure.name,
            "unit": measure.unit,
            "numbers": numbers,
            "ratios": {way: ratios(measure, numbers, way) for way in numbers if way != APPSWITCH},
            "wanted": measure.wanted,
        }
        for measure, numbers in results
    ]


def markdown(kept: Kept) -> str:
    """All that was measured. Numbers are medians, in brackets the quartiles."""
    machine = kept["machine"]
    about = (
        f"Linux {machine['kernel']}, {machine['cpus']} processors, Python {machine['python']}; "
        f"{kept['rounds']} rounds; the machine's load at the start was {kept['load'][0]:.1f}."
    )
    parts: list[tuple[str, Callable[[Any], str]]] = [
        ("traffic", _traffic),
        ("cluster", _cluster),
        ("failover", _failover),
    ]
    return "\n\n".join([about, *(show(kept[part]) for part, show in parts if part in kept)])


def _traffic(rows: list[Kept]) -> str:
    lines = [["", APPSWITCH, PLAIN, HAPROXY, f"AppSwitch : {PLAIN}", "AppSwitch : HAProxy", "wanted"]]
    for row in rows:
        found = row["ratios"]
        wanted = row["wanted"]
        verdict = f"{wanted}: {yes(median(found[PLAIN]) >= wanted)}" if wanted else ""
        cells = [spread(row["numbers"][way]) if way in row["numbers"] else "-" for way in (APPSWITCH, PLAIN, HAPROXY)]
        compared = [spread(found[way]) if way in found else "-" for way in (PLAIN, HAPROXY)]
        lines.append([f"{row['name']}, {row['unit']}", *cells, *compared, verdict])
    return table(lines)


def _cluster(sizes: list[Kept]) -> str:
    def line(name: str, show: Callable[[Kept], str]) -> list[str]:
        return [name, *map(show, sizes)]

    def reached(size: Kept) -> str:
        return f"{_tail(size['reached'][APPSWITCH])} ({yes(_p99(size['reached'][APPSWITCH]) <= REACHED_WANTED)})"

    return table(
        [
            line("", lambda size: f"{size['nodes']} nodes"),
            line("listen to first connect from another host, ms: p50, p99", reached),
            line("the same, plain TCP", lambda size: _tail(size["reached"]["plain"])),
            line("listen to the other hosts' tables, nobody asking, ms: p50, p99", lambda size: _tail(size["told"])),
            line("arriving at rest, bytes/s a node", lambda size: spread(size["rest"])),
            line("arriving for a new service, bytes a node", lambda size: spread(size["service"])),
            line("processor at rest, a node", lambda size: f"{size['rest_cpu']:.2%}"),
            line("memory (PSS), MB a node", lambda size: number(size["memory"])),
            line("start of those that are new until all agree, s", lambda size: number(size["start"])),
            line("processor seconds of it", lambda size: number(size["start_cpu"])),
        ]
    )


def _failover(deaths: list[Kept]) -> str:
    lines = [
        [
            "the host's death",
            "times",
            "connects",
            "failed",
            "last failed after",
            "slowest, s",
            "slow (> 0.1 s)",
            "wanted",
        ]
    ]
    for how in dict.fromkeys(each["how"] for each in deaths):
        rows = [each for each in deaths if each["how"] == how]
        failed, slowest = sum(each["failed"] for each in rows), [each["slowest"] for each in rows]
        last = [each["last_failed"] for each in rows if each["last_failed"] is not None]
        lines.append(
            [
                how,
                str(len(rows)),
                str(sum(each["connects"] for each in rows)),
                str(failed),
                f"{max(last):.2f} s" if last else "-",
                f"{spread(slowest)}, at most {max(slowest):.2f}",
                ", ".join(str(each["slow"]) for each in rows),
                f"0 failed, at most 1 s: {yes(failed == 0 and max(slowest) <= SLOWEST_WANTED)}",
            ]
        )
    return table(lines)


def _p99(values: list[float]) -> float:
    return sorted(values)[len(values) * 99 // 100]


def _tail(values: list[float]) -> str:
    return f"{number(median(values))}, {number(_p99(values))}"
