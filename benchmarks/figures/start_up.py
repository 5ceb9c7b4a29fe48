"""Figure 5: what it takes to start a program."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from appswitch.host.paths import shim_path
from benchmarks.figure import Figure, Goal, Row, Stage, Taken

TRUE, UNSHARE, BWRAP, SPAWN = "`true`", "`unshare -n true`", "`bwrap`", "`spawn true`"
PYTHON = "`python -c pass`"
PLAIN, PRELOADED, REGISTERED = "alone", "preloaded", "preloaded, as an app"
START, PRELOAD = "a start until its end", "`/bin/true`, until its end"
BATCH = 10
"""Starts of /bin/true in a row, whose mean is one number: one start is too short."""


def take(stage: Stage) -> Taken:
    """In turns, one after the other."""
    script = Path(sys.executable).with_name("appswitch")
    commands = {
        TRUE: ["true"],
        UNSHARE: ["unshare", "--net", "true"],
        BWRAP: ["bwrap", "--unshare-net", "--dev-bind", "/", "/", "true"],
        PYTHON: [sys.executable, "-c", "pass"],
        SPAWN: [str(script), "spawn", "true"],
    }
    for name in [name for name, command in commands.items() if shutil.which(command[0]) is None]:
        stage.leave_out(f"{name}: no {commands.pop(name)[0]} here")
    plain = stage.bench.environment
    registered = {**plain, "LD_PRELOAD": str(shim_path())}
    preloaded = {**registered, "APPSWITCH_SOCKET": "/nowhere/trap.sock"}
    environments = {PLAIN: plain, PRELOADED: preloaded, REGISTERED: registered}
    true = [shutil.which("true") or "/bin/true"]
    rounds = max(1, int(30 * stage.scale))
    return stage.in_turns(
        rounds,
        [
            {name: partial(_start, START, each, plain, 1) for name, each in commands.items()},
            {name: partial(_start, PRELOAD, true, each, BATCH) for name, each in environments.items()},
        ],
    )


def _start(row: str, command: list[str], environment: dict[str, str], times: int) -> dict[str, float]:
    """Milliseconds, the mean of so many in a row."""
    start = time.perf_counter()
    for _ in range(times):
        pid = os.posix_spawnp(command[0], command, environment)
        _, status = os.waitpid(pid, 0)
        if status:
            raise subprocess.CalledProcessError(os.waitstatus_to_exitcode(status), command)
    return {row: (time.perf_counter() - start) * 1000 / times}


FIGURE = Figure(
    number=5,
    name="start_up",
    title="Start-up",
    wanted="spawn <= 40 ms over unshare, preload <= 1 ms.",
    notes="""\
From the start of the command to its end. `bwrap` has a network namespace of its own, too, and the host's files
(`--unshare-net --dev-bind / /`). Python is what `spawn` is written in. Preloaded is what the library alone adds to a
program that makes no socket, as to each that an app starts; as an app it is registered first, which takes the trap
handler's answer.""",
    rows=(Row(START, "ms", "milliseconds of a start"), Row(PRELOAD, "ms")),
    take=take,
    goals=(
        Goal("`spawn true`: <= 40 ms over `unshare -n true`", (START,), UNSHARE, "more than", at_most=40.0, way=SPAWN),
        Goal("preloaded: <= 1 ms", (PRELOAD,), PLAIN, "more than", at_most=1.0, way=PRELOADED),
    ),
    seconds=30,
    has_ways=False,
)
