"""A service's health check, run again and again inside the app that it is about.

It is a process of that very app: 127.0.0.1 is the instance's own, however many there are. An app without a namespace
can't be entered; there the check is another app of the same identity.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import trio

from appswitch.compose.patience import Patience
from appswitch.compose.program import Program, appswitch, arguments
from appswitch.compose.project import Check, Service

MOST_SAID = 4096
"""Bytes of a check's output that are looked at."""


async def probe(
    program: Program, check: Check, project: str, trap: Path, verdict: Callable[[bool, str], Awaitable[None]]
) -> None:
    """Checks until it is cancelled. verdict: told of each change: healthy or not, and what the check said."""
    patience = Patience(check)
    last: bool | None = None
    while True:
        succeeded, said = await _run(program, check, project, trap)
        healthy = patience.judge(succeeded, program.age)
        if healthy is not None and healthy != last:
            last = healthy
            await verdict(healthy, said)
        await trio.sleep(patience.pause)


async def _run(program: Program, check: Check, project: str, trap: Path) -> tuple[bool, str]:
    """Whether the command succeeds in time, and what it says."""
    service = program.service
    if service.netns:
        where = ["--inside", str(program.pid), *(["--user", service.user] if service.user is not None else [])]
    else:
        where = arguments(service, project)
    try:
        process = _start([*appswitch(service.environment), "spawn", "--socket", str(trap), *where], check, service)
    except OSError as error:
        return False, str(error)
    assert process.stdout is not None
    pidfd = os.pidfd_open(process.pid)
    said = b""
    try:
        with trio.move_on_after(check.timeout):
            async with trio.lowlevel.FdStream(os.dup(process.stdout.fileno())) as output:
                async for data in output:
                    said = (said + data)[-MOST_SAID:]
            await trio.lowlevel.wait_readable(pidfd)
        return process.poll() == 0, said.decode(errors="replace").strip()
    finally:
        os.close(pidfd)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def _start(spawn: list[str], check: Check, service: Service) -> subprocess.Popen[bytes]:
    """In this thread: the kernel ties the process to it."""
    return subprocess.Popen(
        [*spawn, "--", *check.command], cwd=service.directory, env={**os.environ, **service.environment},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
