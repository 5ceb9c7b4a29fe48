"""Runs a project: in the foreground, or in a process of its own.

In the background a fork runs it, so that nothing is read twice. It tells whoever started it through a socket how the
start went; when that one goes before, as by Ctrl-C, the start is over, and all ends.
"""

from __future__ import annotations

import json
import math
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from functools import partial
from typing import NoReturn

import trio

from appswitch.compose import door
from appswitch.compose.home import Home
from appswitch.compose.logbook import Line, last_lines
from appswitch.compose.project import Project
from appswitch.compose.supervisor import Supervisor
from appswitch.errors import AppSwitchError
from appswitch.host import background, control_client

LAST_WORDS = 20
"""Lines that are shown of what programs said before the start failed."""

Task = Callable[[Supervisor], Awaitable[None]]
Show = Callable[[list[Line]], None]


def run_here(project: Project, home: Home, show: Show) -> int:
    """Until all has ended, or Ctrl-C; the exit status. show: told what is said. AppSwitchError: it can't be run.

    A second Ctrl-C kills. BrokenPipeError of `show` stops all, too.
    """
    received: list[int] = []
    with home.taken(), _trap_handler(project, home):
        supervisor = Supervisor(project, home, background=False)
        tasks = [partial(door.serve, home.door), partial(_heed_signals, received), partial(_show, show)]
        _run(supervisor, *tasks)
    if supervisor.plan.failure is not None:
        raise AppSwitchError("start-failed", supervisor.plan.failure)
    return 128 + received[0] if received else int(supervisor.failed)


def run_in_background(project: Project, home: Home, ready: bool, patience: float | None) -> None:
    """Returns once all is started; with `ready` once all is healthy, or has done what it had to.

    AppSwitchError `start-failed`, with what was said: nothing is left then. patience: seconds; None: without end.
    """
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        _detached(project, home, theirs, ready, patience)
    theirs.close()
    with ours:
        answer = _wait_for_answer(ours, child)
    if answer:
        raise AppSwitchError(**json.loads(answer))


def _wait_for_answer(ours: socket.socket, child: int) -> bytes:
    """What is wrong; empty: nothing. Interrupted, it waits until all has ended; a second time it doesn't."""
    answer = b""
    interrupted = False
    while True:
        try:
            while data := ours.recv(1 << 16):
                answer += data
        except KeyboardInterrupt:
            if interrupted:
                os.kill(child, signal.SIGKILL)
            interrupted = True
            ours.shutdown(socket.SHUT_WR)
            continue
        if interrupted:
            os.waitpid(child, 0)
            raise KeyboardInterrupt
        if not answer:
            return b'{"reason": "start-failed", "message": "the supervisor was killed"}'
        return answer.removeprefix(b"\n")


def _detached(project: Project, home: Home, starter: socket.socket, ready: bool, patience: float | None) -> NoReturn:
    """The process in the background. It says an empty line when all is started, else what is wrong."""
    error: AppSwitchError | None = None
    try:
        os.setsid()
        os.chdir("/")
        with home.taken():
            _redirect_output(home)
            with _trap_handler(project, home):
                supervisor = Supervisor(project, home, background=True)
                tell = partial(_tell_starter, starter, ready, patience)
                _run(supervisor, partial(door.serve, home.door), partial(_heed_signals, []), tell)
            if supervisor.plan.failure is not None:
                error = AppSwitchError("start-failed", _with_last_words(supervisor.plan.failure, home))
            else:
                error = AppSwitchError("start-failed", "it was stopped before all was started")
    except AppSwitchError as failed:
        error = failed
    except BaseException as bug:
        error = AppSwitchError("start-failed", f"{type(bug).__name__}: {bug}")
        raise
    finally:
        if error is not None:
            with suppress(OSError):  # it may be closed: all was started
                starter.setblocking(True)
                said = {"reason": error.reason, "message": error.message, "hint": error.hint}
                starter.sendall(json.dumps(said).encode())
        os._exit(error is not None)


def _redirect_output(home: Home) -> None:
    """Holds up no terminal."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(home.supervisor_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for fd, file in ((0, nothing), (1, log), (2, log)):
        os.dup2(file, fd)
    os.close(nothing)
    os.close(log)


@contextmanager
def _trap_handler(project: Project, home: Home) -> Iterator[None]:
    """There is one as long as this lasts. It is started where there is none."""
    client = control_client.connect(home.trap)
    if client is None:
        client = background.start_server(home.trap, *_flags(project))
    elif project.policy is not None:
        client.close()
        hint = "start that one with `appswitch serve --policy FILE`, and leave x-appswitch.policy out"
        raise AppSwitchError("has-policy", f"a trap handler runs at {home.trap}: its policy is its own", hint)
    try:
        yield
    finally:
        client.close()


def _flags(project: Project) -> list[str]:
    """Of the trap handler that is started for the project. Letting clients in isn't letting programs out."""
    flags = ["--policy", str(project.policy)] if project.policy is not None else []
    if project.egress:
        flags += ["--gateway"]
    elif any(each.published for each in project.services.values()):
        flags += ["--gateway", "--egress", "deny"]
    return flags


def _run(supervisor: Supervisor, *tasks: Task) -> None:
    try:
        trio.run(supervisor.run, *tasks)
    except ExceptionGroup as group:  # nurseries wrap what ends them
        ours = group.subgroup(AppSwitchError)
        if ours is None:
            raise
        error: BaseException = ours
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None


async def _heed_signals(received: list[int], supervisor: Supervisor) -> None:
    """The first one stops all, in order; a second Ctrl-C, or the like, kills."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        async for number in signals:
            supervisor.note("killing all" if received else "stopping all; a second Ctrl-C kills")
            supervisor.stop(kill=bool(received))
            received.append(number)


async def _show(show: Show, supervisor: Supervisor) -> None:
    try:
        async with aclosing(supervisor.logbook.read(follow=True)) as pieces:
            async for lines in pieces:
                await trio.to_thread.run_sync(show, lines, abandon_on_cancel=True)  # a terminal may be stopped
    except BrokenPipeError:
        supervisor.stop()


async def _tell_starter(starter: socket.socket, ready: bool, patience: float | None, supervisor: Supervisor) -> None:
    """Says that the start is over; what has ended it before, is said when nothing is left."""
    plan = supervisor.plan
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(starter))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_stop_when_closed, stream, supervisor)
        with trio.move_on_after(math.inf if patience is None else patience):
            while not plan.stopping and not (plan.started and not (ready and plan.unready)):
                await supervisor.changed()
        if not plan.stopping and not plan.started:
            supervisor.give_up(f"not all is started after {patience:g} s")
        elif not plan.stopping and ready and plan.unready:
            supervisor.give_up(f"not ready after {patience:g} s: {', '.join(map(str, plan.unready))}")
        nursery.cancel_scope.cancel()
    if not plan.stopping:
        supervisor.start_is_over()
        await stream.send_all(b"\n")
        await stream.aclose()


async def _stop_when_closed(stream: trio.SocketStream, supervisor: Supervisor) -> None:
    with suppress(trio.BrokenResourceError):
        await stream.receive_some(1)
    supervisor.stop()


def _with_last_words(message: str, home: Home) -> str:
    lines = last_lines(home.log, LAST_WORDS)
    return "\n".join([message, *(f"{each.instance} | {each.text}" for each in lines if not each.note)])
