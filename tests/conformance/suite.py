"""What a test-suite is here, and how its programs are run and survived.

Whatever a run leaves behind (daemons that cases start) is adopted by this process, a subreaper, and ended.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from attrs import frozen

from tests.conformance.outcomes import Outcomes

MODULE_LIMIT = 1200.0  # seconds that a module may take
CASE_LIMIT = 120  # and a case
MOST_RESTARTS = 8  # of a module whose cases hang or crash
PR_SET_CHILD_SUBREAPER = 36


@frozen
class Module:
    """A part of a suite and what it is run with."""

    name: str
    options: tuple[str, ...] = ()


@frozen
class Way:
    """How a program of the suite is started: prefix is what stands before it."""

    name: str
    prefix: tuple[str, ...]
    environment: dict[str, str]


class Suite(Protocol):
    """Tests of somebody else's."""

    def has(self, module: Module) -> bool:
        """Whether this version of the suite has it."""

    def run(self, module: Module, way: Way, only: str = "") -> Outcomes:
        """Runs a module's cases, or `only` one."""


def survive(
    command: Sequence[str], environment: dict[str, str], cwd: Path, stdout: Path, stderr: Path, limit: float
) -> bool:
    """Runs it, at most for `limit` seconds, and adds what it says to the files. False: it took too long."""
    with stdout.open("a") as output, stderr.open("a") as log, _nothing_left():
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=log,
            start_new_session=True,
        )
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            log.write(f"conformance: ended after {limit:.0f} s\n")
            return False
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        return True


@contextmanager
def _nothing_left() -> Iterator[None]:
    """Ends the processes that come to be children of this one meanwhile."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before = _children()
    try:
        yield
    finally:
        while left := _children() - before:
            for pid in left:
                os.kill(pid, signal.SIGKILL)  # not waited for yet: the number is still its own
                os.waitpid(pid, 0)


def _children() -> set[int]:
    tasks = Path("/proc/self/task").iterdir()
    return {int(pid) for task in tasks for pid in (task / "children").read_text().split()}
