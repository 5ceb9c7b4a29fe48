"""`appswitch` commands as copies of a process that has imported them: a zygote, as Android and Chromium have.

Nearly all of a command's time goes into imports, and the tests run some ten thousand. So a process imports them once
for each of pytest's, and is asked over a Unix socket for copies of itself: clone(2) with CLONE_PARENT, so that each is
a child of the tests as any other that they start. A copy takes the arguments, the environment, the descriptors and the
network namespace that it is to have, and then does what `python -m appswitch` would.

Started in any other way than these (by another user, with another loader) a command is no copy. Nor is it in the tests
of the starting itself: see the fixture `no_copies`.
"""

from __future__ import annotations

import atexit
import ctypes
import fcntl
import gc
import importlib
import inspect
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from appswitch.host.namespace import join

ROOT = Path(__file__).parent.parent
MODULE = [sys.executable, "-m", "appswitch"]
CLONE_PARENT = 0x8000  # linux/sched.h
SYS_CLONE = {"x86_64": 56, "aarch64": 220}
MOST_DESCRIPTORS = 64
KNOWN_OPTIONS = {"env", "cwd", "stdin", "stdout", "stderr", "pass_fds", "text", "start_new_session"}
DECIDES_EARLY = ("LD_", "PYTHON", "LC_", "LANG", "GLIBC_", "MALLOC_")
"""Variables that a process looks at before its program runs."""


def early(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(DECIDES_EARLY)}


class Copy(subprocess.Popen[str]):
    """As Popen, of a command that begins with MODULE; network: a process whose network namespace it is to be in."""

    def __init__(self, command: Sequence[str], network: int | None = None, **options: Any) -> None:
        self._network = network
        super().__init__(command, **options)

    @staticmethod
    def can_be(command: Sequence[str], options: Mapping[str, Any]) -> bool:
        """Whether that is all the same as a start by exec."""
        environment = options.get("env", os.environ)
        return (
            list(command[: len(MODULE)]) == MODULE
            and options.keys() <= KNOWN_OPTIONS
            and early(environment) == early(os.environ)
            and os.uname().machine in SYS_CLONE
        )

    def _execute_child(self, *arguments: Any) -> None:
        """Popen's own, which has made the pipes."""
        given = inspect.signature(subprocess.Popen._execute_child).bind(self, *arguments).arguments  # type: ignore[attr-defined]
        ends = [given["p2cread"], given["c2pwrite"], given["errwrite"]]
        standard = {number: end if end != -1 else number for number, end in enumerate(ends)}
        try:
            self.pid = zygote().copy(
                [str(word) for word in given["args"][len(MODULE) :]],
                given["env"] or dict(os.environ),
                str(given["cwd"] or Path.cwd()),
                {**standard, **{fd: fd for fd in given["pass_fds"]}},
                self._network,
                given["start_new_session"],
            )
        finally:
            self._close_pipe_fds(*(given[name] for name in PIPES))  # type: ignore[attr-defined]
        self._child_created = True


PIPES = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")


class Zygote:
    """The process that copies itself."""

    def __init__(self) -> None:
        self._channel, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._turn = threading.Lock()
        with its:
            command = [sys.executable, "-m", "tests.zygote", str(its.fileno())]
            self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, pass_fds=[its.fileno()])

    def copy(
        self,
        words: list[str],
        environment: dict[str, str],
        directory: str,
        fds: dict[int, int],
        network: int | None,
        new_session: bool,
    ) -> int:
        """The process id of one that does `appswitch WORDS`. fds: the number that a descriptor has there -> which."""
        request = json.dumps([words, environment, directory, list(fds), network, new_session]).encode()
        with os.fdopen(os.memfd_create("request"), "wb+") as file, self._turn:
            file.write(request)
            file.flush()
            socket.send_fds(self._channel, [b"copy"], [file.fileno(), *fds.values()])
            return int(self._channel.recv(32))

    def close(self) -> None:
        self._channel.close()
        self._process.wait()


@cache
def zygote() -> Zygote:
    made = Zygote()
    atexit.register(made.close)
    return made


# --- in the zygote


def serve(channel: socket.socket) -> None:
    """Makes copies until nobody can ask any more. Returns in each of them."""
    while True:
        said, fds, _, _ = socket.recv_fds(channel, 32, MOST_DESCRIPTORS)
        if not said:
            os._exit(0)
        pid = clone()
        if pid == 0:
            channel.close()
            become(fds[0], fds[1:])
            return
        for fd in fds:
            os.close(fd)
        channel.send(str(pid).encode())


def clone() -> int:
    """fork(2), but whose child is its parent's. The tests' own process has one thread, this one."""
    python = ctypes.pythonapi
    python.PyOS_BeforeFork()
    number, flags = SYS_CLONE[os.uname().machine], CLONE_PARENT | signal.SIGCHLD
    pid = int(ctypes.PyDLL(None).syscall(*map(ctypes.c_long, (number, flags, 0, 0, 0, 0))))
    if pid == 0:
        python.PyOS_AfterFork_Child()
    else:
        python.PyOS_AfterFork_Parent()
    return pid


def become(request: int, fds: Sequence[int]) -> None:
    """Takes on what the request says."""
    size = os.fstat(request).st_size
    words, environment, directory, numbers, network, new_session = json.loads(os.pread(request, size, 0))
    if new_session:
        os.setsid()
    place(dict(zip(numbers, fds, strict=True)))
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        errors = "backslashreplace" if name == "stderr" else sys.stdout.errors
        made = open(number, "w" if number else "r", errors=errors, closefd=False)  # noqa: SIM115
        made.reconfigure(line_buffering=number == 2 or (number == 1 and made.isatty()))
        setattr(sys, name, made)
        setattr(sys, f"__{name}__", made)
    sys.argv = ["appswitch", *words]
    if network is not None:
        join(network)


def place(fds: Mapping[int, int]) -> None:
    """Has each descriptor at its number, and no others."""
    beyond = max(*fds, *fds.values()) + 1
    moved = {number: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, beyond) for number, fd in fds.items()}
    for number, fd in moved.items():
        os.dup2(fd, number)
    last = 2
    for number in sorted(number for number in fds if number > 2):
        os.closerange(last + 1, number)
        last = number
    os.closerange(last + 1, 1 << 16)


def end(status: int) -> None:
    """Ends this process but for taking its modules apart, which costs more than a command. Returns when it can't."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        return
    os._exit(status)


if __name__ == "__main__":
    from appswitch.cli.group import COMMANDS  # what only copies need is imported here

    for each in ("appswitch.server", "appswitch.spawn", *(f"appswitch.cli.{name}" for name in COMMANDS.values())):
        importlib.import_module(each)
    gc.freeze()
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)  # pytest's
    serve(socket.socket(fileno=int(sys.argv[1])))
    signal.signal(signal.SIGINT, interrupt)
    try:
        runpy.run_module("appswitch", run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if not isinstance(ended.code, str):
            end(ended.code or 0)
        raise
