"""Figure 6: memory of the trap handler and of what stands by an app; what a large table costs (benchmarks/table.py)."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from functools import partial

from benchmarks import costs
from benchmarks.figure import Figure, Goal, Row, Stage, Taken
from benchmarks.table import FEW, NAME, PLAN, SIZES
from benchmarks.ways import APPSWITCH
from tests.harness import running_switch

REST, WITH_APPS = "trap handler at rest", "trap handler, for each app"
WRAPPERS, SERVICE = "`spawn`'s own processes, for each app", "trap handler, for each service"
FULL, EACH = "a process with that table", "each service of the table"
LOOKUPS = {PLAN: "a connect is decided", NAME: "a name is resolved"}
SAME = "a name is resolved, of the same 100"

LISTEN = """
import socket, sys
there = []
for port in range(1000, 1000 + int(sys.argv[1])):
    there.append(socket.create_server(("", port)))
print(flush=True)
sys.stdin.read()
"""


def take(stage: Stage) -> Taken:
    """A trap handler of its own each round; the table in a process of its own."""
    apps, services = max(2, int(20 * stage.scale)), max(10, int(1000 * stage.scale))
    handler = stage.in_turns(3, [{APPSWITCH: partial(_handler, apps, services)}])
    return handler | stage.in_turns(3, [{f"{size:,} services": partial(_table, size) for size in SIZES}])


def _handler(apps: int, services: int) -> dict[str, float]:
    with running_switch() as switch:
        pids = [switch.server.pid]
        rest = _settled(pids)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        programs = [switch.spawn("sh", "-c", "echo; read end", **pipes) for _ in range(apps)]
        for each in programs:
            _wait(each)
        with_apps = _settled(pids)
        family = costs.family(each.pid for each in programs)
        wrappers = costs.memory(pid for pid in family if costs.is_spawn(pid))
        many = switch.spawn("--name", "many", sys.executable, "-c", LISTEN, str(services), **pipes)
        _wait(many)
        with_services = _settled(pids)
        _end([*programs, many])
    return {
        REST: rest / 1e6,
        WITH_APPS: (with_apps - rest) / apps / 1e3,
        WRAPPERS: wrappers / apps / 1e3,
        SERVICE: (with_services - with_apps) / services / 1e3,
    }


def _settled(pids: list[int]) -> float:
    """Bytes, a moment later: what has been begun comes to its end."""
    time.sleep(0.5)
    return costs.memory(pids)


def _wait(program: subprocess.Popen[str]) -> None:
    assert program.stdout
    if program.stdout.readline() != "\n":
        raise RuntimeError("a program under spawn didn't start")


def _end(programs: list[subprocess.Popen[str]]) -> None:
    for each in programs:
        assert each.stdin
        each.stdin.close()
    for each in programs:
        each.wait(30)


def _table(size: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.table", str(size)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, timeout=120)
    got = json.loads(done.stdout)
    found = {LOOKUPS[PLAN]: got[PLAN], LOOKUPS[NAME]: got[NAME], SAME: got[FEW], FULL: got["memory"] / 1e6}
    return found | {EACH: got["grown"] / size / 1e3}


SMALL, LARGE = (f"{size:,} services" for size in (SIZES[0], SIZES[-1]))

FIGURE = Figure(
    number=6,
    name="memory",
    title="Memory, and a large table",
    wanted="<= 60 MB server at rest, lookups flat to 100,000 services.",
    notes="""\
Memory is PSS: what processes share counts in parts, so that each more Python process makes the trap handler's less.
An app is a shell that waits; the wrappers are the processes of `spawn` that stay beside it. A service is a listener
of one app. The large tables are in a process that has the trap handler's modules loaded and the services of ten other
nodes in the real table (benchmarks/table.py): starting 100,000 servers takes minutes. Lookups are of addresses and
names in random order, by the code that the trap handler decides with, and then of the same hundred at each size,
which the processor's caches keep; *flat* is up to 1.25 times.""",
    rows=(
        Row(REST, "MB"),
        Row(WITH_APPS, "kB"),
        Row(WRAPPERS, "kB"),
        Row(SERVICE, "kB"),
        Row(FULL, "MB"),
        Row(EACH, "kB"),
        Row(LOOKUPS[PLAN], "us", "microseconds of a lookup"),
        Row(LOOKUPS[NAME], "us", "microseconds of a lookup"),
        Row(SAME, "us", "microseconds of a lookup"),
    ),
    take=take,
    goals=(
        Goal("<= 60 MB at rest", (REST,), at_most=60.0),
        Goal("lookups flat to 100,000 services", tuple(LOOKUPS.values()), SMALL, at_most=1.25, way=LARGE),
    ),
    seconds=80,
    has_ways=False,
)
