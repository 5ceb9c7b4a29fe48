"""`./dev bench hosts`: prints Markdown, keeps the numbers in benchmarks/results/. Root only."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import time
from pathlib import Path

from attrs import asdict

from benchmarks.hosts import cluster, failover, report, traffic

RESULTS = Path(__file__).parents[1] / "results"
PARTS = ("traffic", "cluster", "failover")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hosts", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="how often everything is measured (default: 7)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the load: to see that it works")
    parser.add_argument("--only", choices=PARTS, help="a part only")
    parser.add_argument("--nodes", default="3,10,40", metavar="N,...", help="sizes of the cluster (default: 3,10,40)")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="where the numbers are kept")
    parser.add_argument("--read", type=Path, metavar="FILE", help="measure nothing: print what is kept there")
    arguments = parser.parse_args()
    if arguments.read:
        print(report.markdown(json.loads(arguments.read.read_text())))
        return
    if os.geteuid() != 0:
        parser.error("only root can make hosts of network namespaces")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    kept = _measure(arguments, [arguments.only] if arguments.only else PARTS)
    print(report.markdown(kept))
    arguments.results.mkdir(exist_ok=True)
    path = arguments.results / time.strftime("hosts-%Y-%m-%dT%H-%M-%SZ.json", time.gmtime())
    path.write_text(json.dumps(kept, indent=1) + "\n")
    print(f"\nkept in {path}", file=sys.stderr)


def _measure(arguments: argparse.Namespace, parts: list[str] | tuple[str, ...]) -> report.Kept:
    scale, rounds = (0.1 if arguments.quick else 1.0), arguments.rounds
    kept: report.Kept = {
        "machine": {"kernel": platform.release(), "cpus": os.cpu_count(), "python": platform.python_version()},
        "load": os.getloadavg(),
        "rounds": rounds,
    }
    if "traffic" in parts:
        with tempfile.TemporaryDirectory(prefix="appswitch-bench-") as home:
            kept["traffic"] = report.traffic_as_json(traffic.take(rounds, scale, Path(home)))
    if "cluster" in parts:
        sizes = [int(each) for each in arguments.nodes.split(",")]
        made = cluster.take(sizes, 30 * scale, int(20 * scale), max(1, rounds // 2))
        kept["cluster"] = [asdict(each) for each in made]
    if "failover" in parts:
        kept["failover"] = [asdict(each) for each in failover.take(max(1, rounds // 2), 10 * scale + 1)]
    return kept


if __name__ == "__main__":
    main()
