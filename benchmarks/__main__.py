"""`./dev bench`: the seven figures of docs/performance.md, each beside its peers, in one run of at most 15 minutes.

A whole run by root writes that page; a quick one, or a part, only prints. What was measured is kept in
benchmarks/results/ in any case. `--only PART --page` measures a part anew and puts it into the page.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks import machine, page, proxies, ways
from benchmarks.command import keep, new_parser
from benchmarks.figure import Figure, Stage
from benchmarks.figures import FIGURES
from benchmarks.report import Kept, figure_tables, verdict_table, verdicts
from benchmarks.sidecars import sidecars

QUICK = 0.1


def main() -> None:
    """The command."""
    arguments = _arguments()
    if arguments.read:
        print(_shown(json.loads(arguments.read.read_text())))
        return
    figures = _chosen(arguments.only)
    rounds = arguments.rounds or (1 if arguments.quick else None)
    kept: Kept = {"machine": machine.describe(), "figures": {}}
    with tempfile.TemporaryDirectory(prefix="appswitch-bench-") as home, ExitStack() as stack:
        stage = stack.enter_context(prepare(Path(home), QUICK if arguments.quick else 1.0, figures, tcp=arguments.tcp))
        general = list(stage.left_out)
        for figure in figures:
            stage.left_out, stage.rounds = list(general) if figure.has_ways else [], rounds
            kept["figures"][figure.name] = measure(figure, stage)
    keep(kept, arguments.results, "performance")
    print(_shown(kept))
    if arguments.page:
        before = json.loads(page.NUMBERS.read_text())["figures"] if page.NUMBERS.exists() else {}
        kept["figures"] = {**before, **kept["figures"]}
        page.write(kept)
        print(f"written: {page.PAGE}", file=sys.stderr)


def _arguments() -> argparse.Namespace:
    parser = new_parser("benchmarks", __doc__, rounds=None)
    parser.add_argument("--only", default="", metavar="PART", help="only these figures: numbers or names, by commas")
    parser.add_argument("--tcp", action="store_true", help="`spawn --tcp` as one more way")
    parser.add_argument("--page", action="store_true", help="put what is measured into docs/performance.md")
    arguments = parser.parse_args()
    if arguments.page and (arguments.quick or arguments.rounds):
        parser.error("the page is of whole measurements: --page goes neither with --quick nor with --rounds")
    whole = not (arguments.quick or arguments.rounds or arguments.only or arguments.tcp)
    arguments.page = arguments.page or (whole and os.geteuid() == 0)
    return arguments


def _chosen(only: str) -> list[Figure]:
    words = [each for each in only.split(",") if each]
    figures = [each for each in FIGURES if not words or str(each.number) in words or each.name in words]
    unknown = set(words) - {word for each in FIGURES for word in (str(each.number), each.name)}
    if unknown:
        known = ", ".join(f"{each.number} or {each.name}" for each in FIGURES)
        sys.exit(f"there is no figure {', '.join(sorted(unknown))}\nhint: {known}")
    return figures


@contextmanager
def prepare(
    home: Path, scale: float, figures: Sequence[Figure], *, tcp: bool = False, peers: bool = True
) -> Iterator[Stage]:
    """A trap handler, and the ends of all ways that this user has, if a figure is of them.

    tcp: `spawn --tcp`, too; peers: else AppSwitch and the Unix socket only.
    """
    with ExitStack() as stack:
        bench = stack.enter_context(ways.prepare(home))
        stage = Stage(bench, scale)
        if any(each.has_ways for each in figures):
            ends = [ways.appswitch(bench), ways.unix_socket(bench)]
            ends += [ways.by_tcp(bench)] if tcp else []
            ends += _peers(bench, stage, stack) if peers else []
            for each in ends:
                try:
                    stage.loads.append(stack.enter_context(ways.loaded(bench, each)))
                except (AssertionError, RuntimeError) as error:
                    stage.leave_out(f"{each.name}: {error}")
                else:
                    stage.ends.append(each)
        yield stage


def _peers(bench: ways.Bench, stage: Stage, stack: ExitStack) -> Iterator[ways.Ends]:
    yield ways.loopback()
    if os.geteuid() != 0:
        stage.leave_out("bridge and sidecars: only root can build a network")
    elif shutil.which("ip") is None:
        stage.leave_out("bridge and sidecars: no ip here")
    else:
        server, client = stack.enter_context(ways.bridged())
        yield ways.over_bridge(server, client)
        needs = {ways.HAPROXY: shutil.which("haproxy"), ways.NGINX: Path(proxies.STREAM_MODULE).exists()}
        for name, there in needs.items():
            if there:
                yield sidecars(bench, name, server, client)
            else:
                stage.leave_out(f"{name}: not installed here")
    if ways.has_wrapper():
        yield ways.wrapper(bench)
    else:
        stage.leave_out(f"{ways.WRAPPER}: not installed here")


def measure(figure: Figure, stage: Stage) -> Kept:
    """What is kept of it."""
    print(f"figure {figure.number}: {figure.title}", file=sys.stderr, flush=True)
    missing = [each for each in figure.needs if shutil.which(each) is None]
    start, load = time.monotonic(), os.getloadavg()[0]
    stage.until = start + figure.seconds
    if missing:
        stage.leave_out(f"all of it: no {', '.join(missing)} here")
    rows = {} if missing else figure.take(stage)
    return {
        "when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "commit": machine.commit(),
        "load": load,
        "seconds": round(time.monotonic() - start, 1),
        "rows": rows,
        "left_out": list(stage.left_out),
    }


def _shown(kept: Kept) -> str:
    there = [figure for figure in FIGURES if figure.name in kept["figures"]]
    parts = [verdict_table(verdicts(there, kept))]
    for figure in there:
        took = f"{kept['figures'][figure.name]['seconds']:.0f} s"
        parts += [f"## {figure.number}. {figure.title} ({took})", *figure_tables(figure, kept)]
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
