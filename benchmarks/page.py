"""docs/performance.md and its pictures, of the numbers in docs/performance/numbers.json: `python -m benchmarks.page`.

Nothing on the page is written by hand but what a figure says of itself (benchmarks/figures/) and the reasons of goals
that are missed (benchmarks/figures/reasons.toml), shown only where they are. tests/benchmarks/test_page.py fails where
the page isn't what its numbers make of it.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from statistics import median

from benchmarks.figure import Figure, Goal, Row, Taken
from benchmarks.figures import FIGURES
from benchmarks.markdown import spread
from benchmarks.plot import bars, plot
from benchmarks.report import Kept, Verdict, figure_tables, verdict_table, verdicts
from benchmarks.ways import WAYS

DOCS = Path(__file__).parent.parent / "docs"
PAGE, FOLDER = DOCS / "performance.md", DOCS / "performance"
NUMBERS = FOLDER / "numbers.json"
REASONS = Path(__file__).parent / "figures" / "reasons.toml"

REFERENCE = re.compile(r"\{(\w+)\|([^{}|]+)\|([^{}|]+)(?:\|([^{}|]+))?\}")
"""In a reason: {figure|row|way}, a number of this run; {figure|row|way|other}, how many times that of another way."""

HEAD = """\
<!-- Made by `python -m benchmarks.page` of docs/performance/numbers.json; don't change it by hand. -->
# Performance

`./dev bench` measures all of this in one run, of {minutes:.0f} minutes, and makes this page of it; `--only N
--page` takes a figure anew, and each says when it was taken. Each has AppSwitch beside what else there is, in the same
run: all ways in turns, each round another one first. Numbers are
medians, in brackets the quartiles; ratios are of one round each, where both sides had the same weather.

{machine}

- **AppSwitch**: from `spawn` to `spawn` on one host, by a Unix socket that stands for TCP.
- **Unix socket**: one that the same program makes by itself: the limit.
- **TCP loopback**: within the host.
- **TCP bridge**: two network namespaces, veth pairs, a bridge: as containers have it; the paper's baseline.
- **HAProxy sidecars, nginx sidecars** (stream): that bridge, with a proxy at each end, as a mesh has it.
- **socket_wrapper**: another preloaded library that makes Unix sockets of TCP, Samba's, for tests. It stands in for
  ip2unix, which isn't measured: it is neither in Debian nor on PyPI, so `./dev` can't get it.

{verdicts}

What was wanted is issue 8's; the verdicts are made of the numbers ([numbers.json](performance/numbers.json)).
"""


def page(kept: Kept, reasons: dict[str, str]) -> str:
    """The Markdown."""
    found = verdicts(FIGURES, kept)
    head = HEAD.format(minutes=_minutes(kept), machine=_machine(kept["machine"]), verdicts=verdict_table(found))
    there = [figure for figure in FIGURES if figure.name in kept["figures"]]
    return "\n".join([head, *(_section(each, kept, found, reasons) for each in there)])


def _minutes(kept: Kept) -> float:
    return sum(float(each["seconds"]) for each in kept["figures"].values()) / 60


def _machine(machine: Kept) -> str:
    programs = ", ".join(f"{name} {version}" for name, version in machine["programs"].items())
    return (
        f"The machine: {machine['cpus']} processors ({machine['processor']}), {machine['memory']} GiB, "
        f"Linux {machine['kernel']}, Python {machine['python']}; {programs}."
    )


def _section(figure: Figure, kept: Kept, found: Sequence[Verdict], reasons: dict[str, str]) -> str:
    own = kept["figures"][figure.name]
    tree = own["commit"] or "a tree without git"
    taken = f"Measured {own['when']}, at {tree}; the load average was {own['load']:.1f} before it."
    parts = [
        f"## {figure.number}. {figure.title}",
        f"**Wanted**: {figure.wanted}",
        figure.notes,
        *figure_tables(figure, kept),
        *(f"![{title}](performance/{name})" for name, title, _ in pictures(figure, own["rows"])),
    ]
    mine = [each for each in found if each.figure is figure]
    if mine:
        parts.append("\n".join(_told(each, kept, reasons) for each in mine))
    if own["left_out"]:
        parts.append("Left out: " + "; ".join(own["left_out"]) + ".")
    return "\n\n".join([*parts, taken]) + "\n"


def _told(verdict: Verdict, kept: Kept, reasons: dict[str, str]) -> str:
    line = f"- {verdict.goal.wanted}: {verdict.measured}: {'met' if verdict.met else '**missed**'}."
    if verdict.met:
        return line
    reason = " ".join(reasons.get(verdict.key, "The reason is not known yet.").split())
    return f"{line} {_filled(reason, kept)}"


def _filled(reason: str, kept: Kept) -> str:
    """With the numbers of this run in the place of what names them."""

    def number_of(reference: re.Match[str]) -> str:
        figure, row, way, beside = reference.groups()
        numbers = kept["figures"].get(figure, {}).get("rows", {}).get(row, {})
        values = Goal("", (row,), beside or "", way=way).values(numbers)
        return spread(values) if values else "not measured"

    return REFERENCE.sub(number_of, reason)


def pictures(figure: Figure, taken: Taken) -> list[tuple[str, str, str]]:
    """File's name, title, SVG of each."""
    drawn = [row for row in figure.rows if row.plot and row.name in taken]
    made: list[tuple[str, str, str]] = []
    for title, rows in groupby(drawn, key=lambda row: row.plot):
        name = f"{figure.name}-{len(made) + 1}.svg"
        made.append((name, title, _draw(title, list(rows), taken)))
    return made


def _draw(title: str, rows: list[Row], taken: Taken) -> str:
    ways = list(dict.fromkeys(way for row in rows for way in taken[row.name]))
    if not rows[0].across:
        return bars(
            title, {row.name: {way: median(each) for way, each in taken[row.name].items()} for row in rows}, WAYS
        )
    lines = {way: [(row.at, median(taken[row.name][way])) for row in rows if way in taken[row.name]] for way in ways}
    return plot(title, rows[0].across, lines, WAYS)


def files(kept: Kept) -> dict[Path, str]:
    """All that is made of the numbers."""
    drawn = {
        FOLDER / name: text
        for figure in FIGURES
        if figure.name in kept["figures"]
        for name, _, text in pictures(figure, kept["figures"][figure.name]["rows"])
    }
    return {PAGE: page(kept, tomllib.loads(REASONS.read_text())), **drawn}


def write(kept: Kept) -> None:
    """The numbers, and what is made of them; what was made before goes."""
    FOLDER.mkdir(exist_ok=True)
    NUMBERS.write_text(json.dumps(kept, indent=1) + "\n")
    made = files(kept)
    for old in set(FOLDER.glob("*.svg")) - set(made):
        old.unlink()
    for path, text in made.items():
        path.write_text(text)


if __name__ == "__main__":
    write(json.loads(NUMBERS.read_text()))
