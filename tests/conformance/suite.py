"""Runs modules of a test-suite, plain or spawned, and survives them.

A case that hangs or crashes takes its interpreter with it; the rest goes on in another. Whatever a run leaves behind
(daemons that cases start) is adopted by this process, a subreaper, and ended.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from attrs import frozen

from tests.conformance.outcomes import LOST, Outcomes, read_record

RECORDER = Path(__file__).with_name("recorder.py")
MODULE_LIMIT = 1200.0  # seconds that a module may take
CASE_LIMIT = 120  # and a case
MOST_RESTARTS = 8  # of a module whose cases hang or crash
PR_SET_CHILD_SUBREAPER = 36


@frozen
class Module:
    """A module of `python -m test` and what it is run with."""

    name: str
    options: tuple[str, ...] = ()


@frozen
class Way:
    """How the interpreter is started: prefix is what stands before it."""

    name: str
    prefix: tuple[str, ...]
    environment: dict[str, str]


@frozen
class Suite:
    """CPython's, in `python`; what the runs say is kept in `logs`."""

    python: str
    logs: Path

    def has(self, module: Module) -> bool:
        """Whether this version has it: some have gone since 3.11."""
        find = f"import importlib.util as util, sys; sys.exit(util.find_spec('test.{module.name}') is None)"
        command = [self.python, "-c", find]
        silent = subprocess.DEVNULL
        return subprocess.run(command, check=False, stdin=silent, stderr=silent).returncode == 0

    def run(self, module: Module, way: Way, only: str = "") -> Outcomes:
        """Runs a module's cases, or `only` one."""
        with tempfile.TemporaryDirectory(prefix="as-") as directory:
            home = Path(directory)
            record, ignored = home / "record", home / "ignored"
            record.touch()
            outcomes: Outcomes = {}
            for _ in range(MOST_RESTARTS):
                # A VSOCK socket hangs on a virtual machine, with us and without.
                ignored.write_text("\n".join(["*VSOCK*", *outcomes]))
                arguments = [*module.options, "--timeout", str(CASE_LIMIT), *(["--match", only] if only else [])]
                arguments += ["--ignorefile", str(ignored)]  # the last of the two decides
                in_time = self._run(way, [str(record), "test.regrtest", *arguments, module.name], home, module)
                before, outcomes = outcomes, read_record(record.read_text())
                lost = any(outcome.word == LOST for case, outcome in outcomes.items() if case not in before)
                if not in_time or not lost:
                    break
            return outcomes

    def _run(self, way: Way, arguments: Sequence[str], home: Path, module: Module) -> bool:
        """Runs the recorder. False: it took too long."""
        # The flags are those that `python -m test` gives itself.
        command = [*way.prefix, self.python, "-u", "-W", "default", "-bb", "-E", str(RECORDER), *arguments]
        environment = {**way.environment, "TMPDIR": str(home)}
        log_name = f"{module.name}-{way.name}.log"
        with (self.logs / log_name).open("a") as log, _nothing_left():
            process = subprocess.Popen(
                command,
                cwd=home,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            try:
                process.wait(MODULE_LIMIT)
            except subprocess.TimeoutExpired:
                log.write(f"conformance: ended after {MODULE_LIMIT:.0f} s\n")
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
