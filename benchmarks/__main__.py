"""`python -m benchmarks`: measures all ways in turns, prints a table, keeps the numbers in benchmarks/results/."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks import measures, report, ways

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=13, help="how often everything is measured (default: 13)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the load: to see that it works")
    parser.add_argument("--only", default="", metavar="TEXT", help="only measures with TEXT in their name")
    parser.add_argument("--tcp", action="store_true", help="`spawn --tcp`, too")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="where the numbers are kept")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    scale = 0.1 if arguments.quick else 1.0
    rows = measures.all_measures(seconds=0.3 * scale, pings=int(5000 * scale), connects=int(5000 * scale))
    rows = [row for row in rows if arguments.only in row.name]
    if not rows:
        parser.error(f"no measure has {arguments.only!r} in its name")
    with tempfile.TemporaryDirectory(prefix="appswitch-bench-") as home, ExitStack() as stack:
        bench = stack.enter_context(ways.prepare(Path(home)))
        kinds = [ways.appswitch, ways.unix_socket, ways.loopback]
        if arguments.tcp:
            kinds.append(ways.by_tcp)
        if os.geteuid() == 0:
            kinds.append(ways.bridge)
        else:
            print("The bridge is left out: only root can build one.", file=sys.stderr)
        there = [stack.enter_context(kind(bench)) for kind in kinds]
        numbers: list[report.Numbers] = [{way.name: [] for way in there} for _ in rows]
        for turn in range(arguments.rounds):
            print(f"round {turn + 1} of {arguments.rounds}", file=sys.stderr)
            for row, taken in zip(rows, numbers, strict=True):
                for way in there[turn % len(there) :] + there[: turn % len(there)]:  # none is always the first
                    taken[way.name].append(row.take(bench, way))
        times = measures.start_up(bench, int(30 * scale))
    results = list(zip(rows, numbers, strict=True))
    print(report.table(results, [way.name for way in there]))
    print(report.start_up_line(times))
    arguments.results.mkdir(exist_ok=True)
    path = arguments.results / time.strftime("%Y-%m-%dT%H-%M-%SZ.json", time.gmtime())
    path.write_text(json.dumps(report.as_json(results, times, arguments.rounds), indent=1) + "\n")
    print(f"kept in {path}")


if __name__ == "__main__":
    main()
