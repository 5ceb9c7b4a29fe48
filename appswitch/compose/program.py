"""One program of a project: an `appswitch spawn` that ends with us, and takes along what the program has started.

It is started by the main thread, for the kernel ties it to the thread that forks (prctl(2), PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from pathlib import Path

import trio

from appswitch.compose.project import Service

LONGEST_LINE = 1 << 16
"""Bytes; what is longer is cut into several."""
APPSWITCH = [sys.executable, "-P", "-m", "appswitch"]
"""-P: a module in a service's directory is none of ours."""


def appswitch(environment: Mapping[str, str]) -> list[str]:
    """The command, beside this environment: what it says to the program's Python isn't meant for ours."""
    python, *rest = APPSWITCH
    return [python, "-E", *rest] if any(name.startswith("PYTHON") for name in environment) else APPSWITCH


def arguments(service: Service, project: str) -> list[str]:
    """What `spawn` is told of the app."""
    words = ["--name", service.name, "--tag", f"project={project}"]
    for flag, value in (("--ip", service.ip), ("--user", service.user)):
        words += [flag, value] if value is not None else []
    for flag, values in (("--tag", service.tags), ("--expose", service.published), ("--bypass", service.bypasses)):
        words += [word for value in values for word in (flag, value)]
    for flag, given in (("--no-netns", not service.netns), ("--tcp", service.tcp), ("--exclusive", service.exclusive)):
        words += [flag] * given
    return words


class Program:
    """A running one. pid: of `spawn`."""

    def __init__(self, service: Service, project: str, trap: Path) -> None:
        """OSError: it can't be started."""
        self.service = service
        self._started = time.monotonic()
        self.started_at = time.time()
        self._process = subprocess.Popen(
            [*appswitch(service.environment), "spawn", "--socket", str(trap), "--supervised", str(os.getpid()),
             *arguments(service, project), "--", *service.command],
            cwd=service.directory, env={**os.environ, **service.environment},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C is for us: there is an order in which all end
        )  # fmt: skip
        self._pidfd = os.pidfd_open(self._process.pid)
        self.pid = self._process.pid

    @property
    def age(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    async def ended(self) -> int:
        """Its exit status, as a shell has it, once all of it has ended."""
        await trio.lowlevel.wait_readable(self._pidfd)
        code = self._process.wait()
        return code if code >= 0 else 128 - code

    async def lines(self) -> AsyncGenerator[list[str], None]:
        """What it says, as it says it: whole lines."""
        assert self._process.stdout is not None
        rest = b""
        async with trio.lowlevel.FdStream(os.dup(self._process.stdout.fileno())) as output:
            async for data in output:
                *lines, rest = (rest + data).split(b"\n")
                if len(rest) > LONGEST_LINE:
                    lines, rest = [*lines, rest], b""
                if lines:
                    yield [line.decode(errors="replace") for line in lines]
        if rest:
            yield [rest.decode(errors="replace")]

    def signal(self, number: int) -> None:
        """Passed on to the program."""
        if self._process.returncode is None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """Kills the program; `spawn` then kills the rest, and ends."""
        keeper = _first_child(self.pid)
        program = keeper and _first_child(keeper)
        with suppress(ProcessLookupError):
            if program:
                os.kill(program, signal.SIGKILL)
            else:
                self._process.kill()

    @property
    def program_pid(self) -> int | None:
        """Of the program itself; None: it isn't there yet, or no more."""
        keeper = _first_child(self.pid)
        return _first_child(keeper) if keeper else None

    def close(self) -> None:
        """Ends it at once, if it hasn't ended."""
        self._process.kill()
        self._process.wait()
        os.close(self._pidfd)
        assert self._process.stdout is not None
        self._process.stdout.close()


def _first_child(pid: int) -> int | None:
    """The oldest child of a process (proc_pid_task(5))."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return None
    return int(children[0]) if children else None
