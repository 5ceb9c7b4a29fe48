"""Stops of a traced program: by a signal, all its threads at once, and at a terminal: ^Z, fg and ^C."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness import PATIENCE, Switch, eventually
from tests.shim.cases import VIP, Build
from tests.shim.tracees import program_of, status_of

pytestmark = pytest.mark.usefixtures("way")


def states_of(pid: int) -> set[str]:
    """Of all threads: S sleeps, T is stopped, t is stopped and a tracer has been told."""
    return {status_of(int(task.name))["State"][0] for task in Path(f"/proc/{pid}/task").iterdir()}


def is_stopped(pid: int) -> bool:
    return states_of(pid) <= {"T", "t"}


def test_it_stops_and_goes_on(waiting: subprocess.Popen[str]) -> None:
    program = program_of(waiting)
    for _ in range(3):
        os.kill(program, signal.SIGSTOP)
        eventually(lambda: is_stopped(program))
        os.kill(program, signal.SIGCONT)
        eventually(lambda: states_of(program) == {"S"})
    said, _ = waiting.communicate("\n")
    assert said == "errno 111\n"
    assert waiting.returncode == 0


CLIENTS = """
import concurrent.futures as f, socket, sys
def ask(_):
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=60) as s:
        return s.makefile().read() == "%s:%d\\n" % s.getsockname()
with f.ThreadPoolExecutor(30) as pool:
    print("ready", flush=True)
    print(sum(pool.map(ask, range(int(sys.argv[3])))))
"""


def test_many_threads_that_accept_at_once_are_stopped_and_go_on(switch: Switch, build: Build, way: str) -> None:
    """None of 300 clients meets a wrong name, or none at all."""
    ip = {"notify": "10.77.4.1", "ptrace": "10.77.4.2"}[way]
    server = switch.spawn("--ip", ip, "--name", f"crowd-{way}", str(build("crowd", "-static")), ip, "80", "60")
    switch.wait_for(f"crowd-{way}:80")
    program = program_of(server)
    asked = ["--ip", VIP, sys.executable, "-c", CLIENTS, ip, "80"]
    assert switch.run(*asked, "300").stdout == "ready\n300\n"
    assert len(list(Path(f"/proc/{program}/task").iterdir())) == 60
    os.kill(program, signal.SIGSTOP)
    eventually(lambda: is_stopped(program))
    client = switch.spawn(*asked, "300", stdout=subprocess.PIPE)
    assert client.stdout is not None
    assert client.stdout.readline() == "ready\n"
    assert is_stopped(program)
    os.kill(program, signal.SIGCONT)
    assert client.communicate(timeout=PATIENCE)[0] == "300\n"


class Terminal:
    """What a shell says on a terminal, and what is typed there."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._said = b""

    def until(self, text: str) -> None:
        """Reads up to it."""
        while text.encode() not in self._said:
            assert select.select([self._fd], [], [], PATIENCE)[0], self._said
            self._said += os.read(self._fd, 4096)
        self._said = self._said.partition(text.encode())[2]

    def type_in(self, text: str) -> None:
        os.write(self._fd, text.encode())


@contextmanager
def terminal_of(command: list[str], environment: dict[str, str]) -> Iterator[Terminal]:
    """Runs a shell on a terminal of its own."""
    shell, fd = pty.fork()
    if shell == 0:
        os.execvpe(command[0], command, {**environment, "PS1": "$ "})
    try:
        yield Terminal(fd)
    finally:
        os.kill(shell, signal.SIGKILL)
        os.waitpid(shell, 0)
        os.close(fd)


def stop_go_on_and_interrupt(terminal: Terminal, command: str) -> None:
    terminal.until("$ ")
    terminal.type_in(command + "\n")
    terminal.until("errno 111")
    terminal.type_in("\x1a")
    terminal.until("Stopped")
    terminal.until("$ ")
    terminal.type_in("fg\n")
    terminal.until("dialler")  # the shell says what goes on
    terminal.type_in("\n")
    terminal.until("errno 111")
    terminal.type_in("\x03")
    terminal.until("$ ")
    terminal.type_in("echo status $?\n")
    terminal.until("status 130")


def test_a_shell_around_spawn(switch: Switch, build: Build) -> None:
    command = [*switch.appswitch, "spawn", "--ip", VIP, str(build("dialler", "-static")), VIP, "9"]
    with terminal_of(["bash", "--norc", "--noprofile", "--noediting", "-i"], switch.environment) as terminal:
        stop_go_on_and_interrupt(terminal, " ".join(command))


@pytest.mark.program("busybox-static")
@pytest.mark.parametrize(
    "shell",
    [["bash", "--norc", "--noprofile", "--noediting", "-i"], ["busybox", "sh", "-i"]],
    ids=["dynamic", "static"],
)
def test_a_shell_inside(switch: Switch, build: Build, shell: list[str]) -> None:
    """The static one is traced, too, and sees its children stop all the same."""
    with terminal_of([*switch.appswitch, "spawn", "--ip", VIP, *shell], switch.environment) as terminal:
        stop_go_on_and_interrupt(terminal, f"{build('dialler', '-static')} {VIP} 9")
