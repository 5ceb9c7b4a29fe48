"""`./dev bench hosts`: prints Markdown, keeps the numbers in benchmarks/results/. Root only."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

from attrs import asdict

from benchmarks.command import keep, new_parser
from benchmarks.hosts import cluster, failover, report, traffic
from benchmarks.machine import describe

PARTS = ("traffic", "cluster", "failover")


def main() -> None:
    """The command."""
    parser = new_parser("benchmarks.hosts", __doc__, rounds=7)
    parser.add_argument("--only", choices=PARTS, help="a part only")
    parser.add_argument("--nodes", default="3,10,40", metavar="N,...", help="sizes of the cluster (default: 3,10,40)")
    arguments = parser.parse_args()
    if arguments.read:
        print(report.markdown(json.loads(arguments.read.read_text())))
        return
    if os.geteuid() != 0:
        parser.error("only root can make hosts of network namespaces")
    kept = _measure(arguments, [arguments.only] if arguments.only else PARTS)
    print(report.markdown(kept))
    keep(kept, arguments.results, "hosts")


def _measure(arguments: argparse.Namespace, parts: list[str] | tuple[str, ...]) -> report.Kept:
    scale, rounds = (0.1 if arguments.quick else 1.0), arguments.rounds
    kept: report.Kept = {
        "machine": describe(),
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
