"""Programs at the ends of a way: servers that go on, and what is asked of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.figure import Stage
from benchmarks.ways import ALONE, Bench, Ends, Way, run_to_end, stop
from tests.harness import eventually

CONNECTS = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 5).close()"


@contextmanager
def running(bench: Bench, ends: Ends, command: Sequence[str], which: int | Path) -> Iterator[None]:
    """A server there; which: of its ports is waited for, or the path of its Unix socket.

    RuntimeError: it doesn't start.
    """
    log = bench.home / "programs.log"
    with log.open("a") as output:
        server = subprocess.Popen(
            [*ends.server, *command], env=bench.environment, stdout=output, stderr=output, **ALONE
        )
    try:
        if isinstance(which, Path):
            eventually(which.exists)
        else:
            probe = [*ends.client, sys.executable, "-c", CONNECTS, ends.address, str(ends.at + which)]
            eventually(lambda: _succeeds(probe, bench.environment))
        yield
    except AssertionError:
        raise RuntimeError(f"{command[0]} didn't start: {log.read_text()[-500:]}") from None
    finally:
        stop(server)


def started(stage: Stage, stack: ExitStack, ends: Ends, command: Sequence[str], which: int | Path) -> bool:
    """Whether a server runs there, until the stack's end; else the way is left out. which: as for `running`."""
    try:
        stack.enter_context(running(stage.bench, ends, command, which))
    except RuntimeError as error:
        stage.leave_out(f"{ends.name}: {error}")
        return False
    return True


def _succeeds(command: Sequence[str], environment: dict[str, str]) -> bool:
    return subprocess.run(command, env=environment, stderr=subprocess.DEVNULL, check=False).returncode == 0


def ask(
    stage: Stage, way: Way, row: str, number: Callable[[dict[str, float]], float], *arguments: str
) -> Callable[[], Mapping[str, float]]:
    """Runs a client of the load once, for one row. number: of its JSON."""
    return lambda: {row: number(json.loads(way.ask(stage.bench.environment, *arguments)))}


def count_calls(bench: Bench, ends: Ends, command: Sequence[str]) -> tuple[int, str]:
    """Runs a client to its end: the system calls that it makes, by strace, and what it prints."""
    told = bench.home / "strace"
    said = run_to_end([*ends.client, "strace", "-f", "-c", "-o", str(told), *command], bench.environment)
    (total,) = (line.split()[3] for line in told.read_text().splitlines() if line.endswith(" total"))
    return int(total), said


def on_processor(last: bool) -> tuple[str, ...]:
    """What puts a command onto the first or the last processor that we may use."""
    usable = sorted(os.sched_getaffinity(0))
    return ("taskset", "-c", str(usable[-1 if last else 0]))
