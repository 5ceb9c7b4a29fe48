"""`./dev bench gateways`: clients outside, through a gateway to a server on its own host, and to one on another host.

AppSwitch, HAProxy (TCP mode) and nginx (stream) do it in the same place: a namespace is the internet, one the gateway's
host, one the host inside. Behind each is the same program, spawned or plain, and all are measured in turns: a ratio is
of one round. `direct` is without anything between, for the gateway's own host only: what there is to have. Requests are
of wrk to nginx, the rest is of benchmarks/load.c. Prints Markdown, keeps the numbers in benchmarks/results/. Root only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from attrs import frozen

from benchmarks import measures, proxies, web
from benchmarks.command import keep, new_parser
from benchmarks.figure import Numbers
from benchmarks.machine import describe, version
from benchmarks.markdown import spread, table, yes
from benchmarks.measures import Measure, duration
from benchmarks.report import ratios
from benchmarks.ways import APPSWITCH, Bench, compile_load, served
from tests.harness import eventually
from tests.hosts import INTERNET, Host, Namespace, network

HAPROXY, NGINX, DIRECT = "HAProxy", "nginx", "direct"
LOCAL, REMOTE = "an instance on the gateway's host", "an instance on another host"
GATEWAY = INTERNET + "101"

LOAD_PORT, WEB_PORT = 7000, 7010  # of the plain servers; the load has the two ports after it, too
OFFSETS = (0, 1, 2, 10)
FIRST = {(LOCAL, APPSWITCH): 8000, (REMOTE, APPSWITCH): 8100, (LOCAL, HAPROXY): 8200, (REMOTE, HAPROXY): 8300,
         (LOCAL, NGINX): 8400, (REMOTE, NGINX): 8500, (LOCAL, DIRECT): LOAD_PORT}  # fmt: skip
"""Ports at the gateway; what is at LOAD_PORT + n is reached by FIRST + n."""

Kept = dict[str, Any]


@frozen
class Row:
    """A measure and where it is taken."""

    place: str
    measure: Measure


@contextmanager
def gateway(home: Path) -> Iterator[tuple[Namespace, Path]]:
    """The namespace outside, and the load's program."""
    load = compile_load(home / "load")
    with network() as net, ExitStack() as stack:
        host, inner = net.add("gateway"), net.add("inner")
        outside = net.internet(host)
        host.serve("--key-file", str(net.key), "--gateway", "--gateway-bind", GATEWAY)
        inner.serve("--key-file", str(net.key), "--join", host.address)
        for each in (host, inner):
            eventually(lambda each=each: len(each.tables()) == 2)
            each.command("nodes", "--wait")
        for place, where, ip in ((LOCAL, host, "10.77.9.1"), (REMOTE, inner, "10.77.9.2")):
            bench = Bench(where.directory, load, where.environment)
            _start_web(where, "plain", WEB_PORT)
            stack.enter_context(served(bench, where.prefix, "tcp", "0.0.0.0", LOAD_PORT))
            first = FIRST[place, APPSWITCH]
            exposes = [word for n in OFFSETS for word in ("--expose", f"{LOAD_PORT + n}:{first + n}")]
            spawn = [*where.prefix, *where.appswitch, "spawn", "--ip", ip, *exposes, "--"]
            stack.enter_context(served(bench, spawn, "tcp", "0.0.0.0", LOAD_PORT))
            _start_web(where, "spawned", WEB_PORT, *where.appswitch, "spawn", "--ip", ip, *exposes, "--")
        _start_proxies(host, inner)
        for first in FIRST.values():
            for port in (first + n for n in OFFSETS):
                command = [*outside.enter, sys.executable, "-c", CONNECTS, GATEWAY, str(port)]
                eventually(lambda command=command: subprocess.run(command, check=False).returncode == 0)
        yield outside, load


CONNECTS = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), 5) as end:
        end.settimeout(0.05)
        sys.exit(end.recv(1) == b"" and sys.argv[2][-1] != "2")  # the third server of the load ends at once
except TimeoutError:
    pass
except OSError:
    sys.exit(1)
"""
"""Whether something is behind the port."""


def _start_web(host: Host, name: str, port: int, *prefix: str) -> None:
    home = host.directory / name
    home.mkdir()
    host._popen([*prefix, *web.nginx(home, str(port))], stdout=subprocess.DEVNULL)


def _start_proxies(host: Host, inner: Host) -> None:
    to = {LOCAL: "127.0.0.1", REMOTE: inner.address}
    for way, command in ((HAPROXY, proxies.haproxy), (NGINX, proxies.nginx)):
        passes = [(f":{FIRST[place, way] + n}", f"{to[place]}:{LOAD_PORT + n}") for place in to for n in OFFSETS]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        host._popen(command(host.directory, passes), **quiet)


def rows(scale: float) -> list[Row]:
    """Of both places. Those with the same arguments are of one run. scale: of the load."""
    seconds, pings, connects = str(1.0 * scale), str(int(3000 * scale)), str(int(2000 * scale))
    kept, closed = ("wrk", web.KEPT, str(2 * scale)), ("wrk", web.CLOSED, str(2 * scale))

    def of(place: str, much: float, others: float) -> list[Row]:
        many = ("connect", "8", connects)
        found = [
            Measure("writes of 128 KiB", "Gbit/s", ("stream", "131072", seconds), measures.gigabits, wanted=much),
            duration("1 B there and back", ("ping", "1", pings)),
            Measure("connects, 1 client", "1/s", ("connect", "1", connects), measures.connects, wanted=others),
            Measure("connects, 8 clients", "1/s", many, measures.connects, wanted=others),
            duration("a connect to its end, 8 clients", many),
            Measure("requests, connections kept", "1/s", kept, _requests),
            duration("a request, connections kept, median", kept, _of_wrk("median")),
            duration("a request, connections kept, p99", kept, _of_wrk("p99")),
            Measure("requests, a connection each", "1/s", closed, _requests),
            duration("a request, a connection each, p99", closed, _of_wrk("p99")),
        ]
        return [Row(place, measure) for measure in found]

    return of(LOCAL, 2.0, 1.0) + of(REMOTE, 0.8, 0.8)


def _requests(got: dict[str, float]) -> float:
    return got["requests"] / got["seconds"]


def _of_wrk(key: str) -> Callable[[dict[str, float]], float]:
    return lambda got: got[key]


def ask(outside: Namespace, load: Path, first: int, arguments: tuple[str, ...]) -> dict[str, float]:
    """Runs a client outside, to its end. RuntimeError: what it counts isn't all successes."""
    if arguments[0] == "wrk":
        _, connection, seconds = arguments
        return web.told(outside.run(*web.wrk(GATEWAY, first + WEB_PORT - LOAD_PORT, connection, float(seconds))))
    command = [*outside.enter, str(load), "client", "tcp", GATEWAY, str(first), *arguments]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True, timeout=60)
    got: dict[str, float] = json.loads(done.stdout)
    return got


def take(rounds: int, scale: float, home: Path, only: str) -> list[tuple[Row, Numbers]]:
    """Measures all ways in turns, so often."""
    wanted = [row for row in rows(scale) if only in f"{row.place}: {row.measure.name}"]
    ways = {place: [way for each, way in FIRST if each == place] for place in (LOCAL, REMOTE)}
    results: list[tuple[Row, Numbers]] = [(row, {way: [] for way in ways[row.place]}) for row in wanted]
    with gateway(home) as (outside, load):
        for turn in range(rounds):
            print(f"round {turn + 1} of {rounds}", file=sys.stderr)
            for place, arguments in dict.fromkeys((row.place, row.measure.arguments) for row in wanted):
                there = ways[place]
                for way in there[turn % len(there) :] + there[: turn % len(there)]:  # none is always the first
                    got = ask(outside, load, FIRST[place, way], arguments)
                    for row, numbers in results:
                        if (row.place, row.measure.arguments) == (place, arguments):
                            numbers[way].append(row.measure.number(got))
    return results


def as_json(results: list[tuple[Row, Numbers]]) -> list[Kept]:
    """A row of the tables each."""
    return [
        {
            "place": row.place,
            "name": f"{row.measure.name}, {row.measure.unit}",
            "numbers": numbers,
            "ratios": {way: ratios(row.measure, numbers, way) for way in numbers if way != APPSWITCH},
            "wanted": row.measure.wanted,
        }
        for row, numbers in results
    ]


def markdown(kept: Kept) -> str:
    """A table for each place. Numbers are medians, in brackets the quartiles."""
    machine = kept["machine"]
    about = (
        f"Linux {machine['kernel']}, {machine['cpus']} processors, {machine['haproxy']}, {machine['nginx']}; "
        f"{kept['rounds']} rounds; the machine's load at the start was {kept['load'][0]:.1f}."
    )
    parts = [about]
    for place in (LOCAL, REMOTE):
        found = [row for row in kept["rows"] if row["place"] == place]
        if found:
            ways = list(found[0]["numbers"])
            compared = [f"AppSwitch : {way}" for way in (HAPROXY, NGINX)]
            lines = [[f"to {place}", *ways, *compared, "wanted beside HAProxy"], *map(_cells, found)]
            parts.append(table(lines))
    return "\n\n".join(parts)


def _cells(row: Kept) -> list[str]:
    verdict = f"{row['wanted']}: {yes(median(row['ratios'][HAPROXY]) >= row['wanted'])}" if row["wanted"] else ""
    compared = [spread(row["ratios"][way]) for way in (HAPROXY, NGINX)]
    return [row["name"], *map(spread, row["numbers"].values()), *compared, verdict]


def main() -> None:
    """The command."""
    parser = new_parser("benchmarks.gateways", __doc__, rounds=9)
    parser.add_argument("--only", default="", metavar="TEXT", help="only what has TEXT in `PLACE: NAME`")
    arguments = parser.parse_args()
    if arguments.read:
        print(markdown(json.loads(arguments.read.read_text())))
        return
    if os.geteuid() != 0:
        parser.error("only root can make hosts of network namespaces")
    kept: Kept = {
        "machine": {
            **describe(),
            "haproxy": f"HAProxy {version('haproxy', '-v')}",
            "nginx": f"nginx {version('nginx', '-v')}",
        },
        "load": os.getloadavg(),
        "rounds": arguments.rounds,
    }
    with tempfile.TemporaryDirectory(prefix="appswitch-bench-") as home:
        kept["rows"] = as_json(take(arguments.rounds, 0.1 if arguments.quick else 1.0, Path(home), arguments.only))
    print(markdown(kept))
    keep(kept, arguments.results, "gateways")


if __name__ == "__main__":
    main()
