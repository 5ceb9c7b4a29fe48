"""The paper's Figure 3, drawn: what iperf gets through, by the size of its writes.

    python -m examples.figure3

README.md says what there is to see, and has the picture. Half a minute; as root with the bridge, else without.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from statistics import median

from benchmarks.markdown import number, table
from benchmarks.plot import plot
from examples.stage import Place, Stage, expect, play, show, tell
from tests.harness import free_port

APPSWITCH, LOOPBACK, BRIDGE = "AppSwitch", "TCP loopback", "TCP veth + bridge"
SIZES = {"64": 64, "512": 512, "4K": 4096, "32K": 32768, "128K": 131072, "1M": 1048576}  # iperf's words -> bytes
PORT = 5001  # iperf's own; of namespaces

Ways = dict[str, tuple[Place, str]]
"""Name -> where the client runs, and its command, up to what is measured."""


def appswitch(stage: Stage) -> tuple[Place, str]:
    """From spawn to spawn, on one host."""
    here = stage.here()
    here.serve()
    here.start("appswitch spawn --name server -- iperf -s")
    here.wait_for(f"server:{PORT}")
    return here, "appswitch spawn -- iperf -c server"


def loopback(stage: Stage) -> tuple[Place, str]:
    """TCP over this host's loopback."""
    here, port = stage.here(), free_port()
    here.start(f"iperf -s -B 127.0.0.1 -p {port}").wait_until_it_listens(port)
    return here, f"iperf -c 127.0.0.1 -p {port}"


def bridge(stage: Stage) -> tuple[Place, str]:
    """TCP between two namespaces, by veth pairs and a bridge: as containers have it."""
    network, (server, client) = stage.hosts("server", "client")
    server.start("iperf -s").wait_until_it_listens(PORT)
    return client, f"iperf -c {network.hosts[0].address}"


def measure(ways: Ways, rounds: int, seconds: float) -> dict[str, dict[str, list[float]]]:
    """Way -> size -> Gbit/s, a number a round. None of them is always the first."""
    found: dict[str, dict[str, list[float]]] = {name: {size: [] for size in SIZES} for name in ways}
    for turn in range(rounds):
        print(f"  round {turn + 1} of {rounds}", flush=True)
        for size in SIZES:
            for name in [*ways][turn % len(ways) :] + [*ways][: turn % len(ways)]:
                place, command = ways[name]
                said = place.run(f"{command} -l {size} -t {seconds:g} -y C", quiet=turn > 0)
                found[name][size].append(int(said.splitlines()[-1].split(",")[-1]) / 1e9)
    return found


def scene(stage: Stage, into: Path, rounds: int, seconds: float) -> None:
    """The example."""
    tell("1. Three ways from an iperf client to an iperf server, both unmodified.")
    ways: Ways = {APPSWITCH: appswitch(stage), LOOPBACK: loopback(stage)}
    if os.geteuid() == 0:
        ways[BRIDGE] = bridge(stage)
    else:
        print(f"  ({BRIDGE} is left out: only root can build one.)")
    print("  (A plain Unix socket is left out: iperf has none. `./dev bench` has it, by another program.)")
    tell("2. All ways in turns, size by size, so that they have the same weather.")
    found = measure(ways, rounds, seconds)

    tell("3. Gbit/s, medians; and how many times as fast AppSwitch is:")
    others = [name for name in ways if name != APPSWITCH]
    lines = [["write", *ways, *(f"AppSwitch : {name}" for name in others)]]
    for size in SIZES:
        pairs = [zip(found[APPSWITCH][size], found[name][size], strict=True) for name in others]
        ratios = [median(ours / theirs for ours, theirs in each) for each in pairs]
        lines.append([size, *(number(median(found[name][size])) for name in ways), *map(number, ratios)])
    show(table(lines))
    curves = {name: [(SIZES[size], median(each)) for size, each in rows.items()] for name, rows in found.items()}
    picture = into / "figure3.svg"
    picture.write_text(plot("iperf, Gbit/s", "bytes a write", curves))
    expect(all(rate > 0 for curve in curves.values() for _, rate in curve), "iperf gets something through")
    tell(f"The picture: {picture}")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m examples.figure3", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is measured (default: 3)")
    parser.add_argument("--seconds", type=float, default=0.4, help="for how long each time (default: 0.4)")
    parser.add_argument(
        "--into", type=Path, default=Path(__file__).parent, metavar="DIR", help="where the picture goes (default: here)"
    )
    arguments = parser.parse_args()
    needs = ["iperf", *(["ip"] if os.geteuid() == 0 else [])]
    return play(lambda stage: scene(stage, arguments.into, arguments.rounds, arguments.seconds), needs)


if __name__ == "__main__":
    sys.exit(main())
