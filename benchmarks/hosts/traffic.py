"""What passes between two hosts: benchmarks/load.c by AppSwitch, plainly, and through an HAProxy at each end.

Plain is the same program from one of the two namespaces to the other. The two HAProxies are as a mesh has them: the
client speaks to the one on its own host, that one to the other's, that one to the server.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks import measures, proxies
from benchmarks.figure import Numbers
from benchmarks.measures import Measure, duration
from benchmarks.ways import APPSWITCH, Bench, Way, compile_load, served
from tests.harness import eventually, stop
from tests.hosts import Host, network

PLAIN, HAPROXY = "plain", "HAProxy at each end"

PORT = 7000  # and the two after it
NEAR_PORT, FAR_PORT = 7100, 7200  # of the HAProxies
VIRTUAL_IP = "10.77.9.1"


@contextmanager
def two_hosts(home: Path) -> Iterator[tuple[dict[str, list[Way]], dict[str, str]]]:
    """Of each kind of load (tcp, udp), the ways from one host to the other; and the environment of their clients."""
    load = compile_load(home / "load")
    with network() as made, ExitStack() as stack:
        near, far = made.serve("near", "far")
        bench = Bench(home, load, far.environment)
        ways: dict[str, list[Way]] = {}
        for kind in ("tcp", "udp"):
            spawn = [*far.prefix, *far.appswitch, "spawn", "--ip", VIRTUAL_IP, "--"]
            for prefix in (spawn, far.prefix):
                stack.enter_context(served(bench, prefix, kind, "0.0.0.0", PORT))
            client = (str(load), "client", kind)
            spawned = (*near.prefix, *near.appswitch, "spawn", "--", *client, VIRTUAL_IP, str(PORT))
            ways[kind] = [Way(APPSWITCH, spawned), Way(PLAIN, (*near.prefix, *client, far.address, str(PORT)))]
        for host, port, to in ((far, FAR_PORT, PORT), (near, NEAR_PORT, FAR_PORT)):
            stack.enter_context(_haproxy(host, port, far.address, to))
        mesh = (*near.prefix, str(load), "client", "tcp", near.address, str(NEAR_PORT))
        ways["tcp"].append(Way(HAPROXY, mesh))
        near.command("nodes", "--wait")
        yield ways, near.environment


@contextmanager
def _haproxy(host: Host, port: int, address: str, to: int) -> Iterator[None]:
    """Passes on what comes to `port` and the two after it to `to` and those after it."""
    command = proxies.haproxy(host.directory, ((f":{port + n}", f"{address}:{to + n}") for n in range(3)))
    with (host.directory / "haproxy.log").open("w") as log:
        proxy = subprocess.Popen([*host.prefix, *command], stdout=log, stderr=log, text=True, start_new_session=True)
    try:
        listening = Path(f"/proc/{host.namespace.pid}/net/tcp")
        eventually(lambda: f":{port + 2:04X} 00000000:0000 0A" in listening.read_text())
        yield
    finally:
        stop(proxy)


def rows_of(scale: float) -> dict[str, list[Measure]]:
    """The rows of each kind; those with the same arguments are of one run. scale: of the load."""
    seconds, pings, connects = str(0.5 * scale), str(int(3000 * scale)), int(400 * scale)
    return {
        "tcp": [
            *(
                Measure(f"writes of {name}", "MB/s", ("stream", size, seconds), measures.megabytes, wanted=0.98)
                for name, size in (("1 KiB", "1024"), ("128 KiB", "131072"))
            ),
            duration("1 B there and back", ("ping", "1", pings)),
            *(
                row
                for clients in (1, 8)
                for arguments in [("connect", str(clients), str(connects))]
                for name in [f"{clients} client{'s' * (clients > 1)}"]
                for row in (
                    Measure(f"connects, {name}", "1/s", arguments, measures.connects),
                    duration(f"a connect to its end, {name}, median", arguments),
                    duration(f"a connect to its end, {name}, p99", arguments, measures.p99_us),
                )
            ),
        ],
        "udp": [
            Measure("datagrams of 64 B that arrive", "1/s", ("stream", "64", seconds), _datagrams),
            Measure("datagrams of 1400 B that arrive", "1/s", ("stream", "1400", seconds), _datagrams),
            duration("64 B there and back by UDP, median", ("ping", "64", pings)),
            duration("64 B there and back by UDP, p99", ("ping", "64", pings), measures.p99_us),
        ],
    }


def _datagrams(got: dict[str, float]) -> float:
    return got["datagrams"] / got["seconds"]


def take(rounds: int, scale: float, home: Path) -> list[tuple[Measure, Numbers]]:
    """Measures all ways in turns, so often."""
    with two_hosts(home) as (ways, environment):
        rows = rows_of(scale)
        results: list[tuple[Measure, Numbers]] = [
            (row, {way.name: [] for way in ways[kind]}) for kind in rows for row in rows[kind]
        ]
        for turn in range(rounds):
            print(f"traffic: round {turn + 1} of {rounds}", file=sys.stderr)
            for kind, there in ways.items():
                for arguments in dict.fromkeys(row.arguments for row in rows[kind]):
                    for way in there[turn % len(there) :] + there[: turn % len(there)]:  # none is always the first
                        got = json.loads(way.ask(environment, *arguments))
                        for row, numbers in results:
                            if row in rows[kind] and row.arguments == arguments:
                                numbers[way.name].append(row.number(got))
        return results
