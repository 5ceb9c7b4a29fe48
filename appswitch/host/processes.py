"""A program as a child, waited for by two processes.

The *wrapper* is what the user started: it passes signals on and ends as the program ends. An app is a process tree
though, and may outlive its main program (a daemon, a job in the background). So the program is not the wrapper's child
but that of a *keeper*, which adopts what the tree leaves behind (prctl(2), PR_SET_CHILD_SUBREAPER) and stays, with
nothing but its service for the trap handler (host/keeper.py), until the last process of the tree has ended.

    wrapper --fork--> keeper --fork--> program

The keeper tells the wrapper the program's pid, and in the end its status, through a pipe, and wakes it with SIGCHLD.
Signals reach the program through both. When the wrapper is killed, the keeper gets a signal (PR_SET_PDEATHSIG) and
kills the program and all that it has started, as the user would expect.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn, Protocol

    class Service(Protocol):
        """What the keeper does beside waiting."""

        def signal_requests(self) -> None:
            """Has SIGIO sent to this process when there is something to do."""

        def answer(self) -> bool:
            """Does it. Called on SIGIO, and after `pause`. True: the trap handler has gone just now."""

        def pause(self) -> float | None:
            """After how many seconds there is something to do whatever happens; None: never."""

        def close(self) -> None:
            """Another process does it."""


FAILED = 125
SI_KERNEL = 0x80  # sigaction(2): from the terminal, which tells the whole process group itself
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
NOT_PASSED_ON = {signal.SIGCHLD, signal.SIGKILL, signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU,
                 signal.SIGCONT, signal.SIGWINCH, signal.SIGURG, signal.SIGPIPE,
                 signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP,
                 signal.SIGSYS}  # fmt: skip
PASSED_ON = set(signal.Signals) - NOT_PASSED_ON - {signal.SIGIO}
WRAPPER_GONE = signal.SIGUSR1

_libc = ctypes.CDLL(None, use_errno=True)


def tell(text: str) -> None:
    """Says something on stderr, if there is one."""
    if sys.stderr is not None:
        print(text, file=sys.stderr, flush=True)


def without_preload(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment for a process of ours that is no program under AppSwitch."""
    return {key: value for key, value in environment.items() if key != "LD_PRELOAD"}


def run(
    program: Callable[[], NoReturn],
    hung_up: Callable[[], None],
    service: Service | None = None,
    whole: bool = False,
    passed: Iterable[int] = (),
) -> int:
    """Runs `program` (which execs) in a child; returns the exit status: its own, or 128+n.

    hung_up: called when the trap handler has gone; service: what the keeper does; whole: when the program ends, what
    it has started is killed, and that is waited for. passed: descriptors that are for the program alone.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, as a caller may leave it, an end goes unnoticed
    wanted = PASSED_ON | {signal.SIGCHLD, signal.SIGIO}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
    heard, say = os.pipe()
    wrapper = os.getpid()
    keeper = os.fork()
    if keeper == 0:
        os.close(heard)
        _keep(program, mask, wrapper, say, service, whole, passed)
    for fd in (say, *passed):
        os.close(fd)
    if service is not None:
        service.close()
    child = int.from_bytes(os.read(heard, 4), "little")
    os.set_blocking(heard, False)
    while True:
        info = signal.sigwaitinfo(wanted)
        if info.si_signo == signal.SIGCHLD:
            with suppress(BlockingIOError):  # the keeper was stopped or continued
                said = os.read(heard, 4)
                return _exit_code(int.from_bytes(said, "little") if said else os.waitpid(keeper, 0)[1])
        elif info.si_signo == signal.SIGIO:
            hung_up()
        else:
            _pass_on(info, child)


def _pass_on(info: signal.struct_siginfo, child: int) -> None:
    if info.si_code != SI_KERNEL:
        with suppress(ProcessLookupError):
            os.kill(child, info.si_signo)


def _exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _keep(
    program: Callable[[], NoReturn],
    mask: set[signal.Signals | int],
    wrapper: int,
    say: int,
    service: Service | None,
    whole: bool,
    passed: Iterable[int],
) -> NoReturn:
    try:
        _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        _libc.prctl(PR_SET_PDEATHSIG, WRAPPER_GONE, 0, 0, 0)
        keeper = os.getpid()
        child = os.fork()
        if child == 0:
            _start(program, mask, keeper)
        os.write(say, child.to_bytes(4, "little"))
        let_go(passed)
        if service is not None:
            service.signal_requests()
        _reap(child, wrapper, say, service, whole)
    finally:
        os._exit(FAILED)


def _start(program: Callable[[], NoReturn], mask: set[signal.Signals | int], keeper: int) -> NoReturn:
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and exec would keep that
        signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # one that comes before exec ends us as it ends the program
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    program()


def die_with_parent() -> None:
    """The kernel kills this process when its parent dies. To be called after a change of user, which undoes it."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def let_go(passed: Iterable[int] = ()) -> None:
    """A keeper holds up no terminal, no pipe, no directory, and nothing that was meant for the program."""
    for fd in passed:
        os.close(fd)
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in range(3):
        os.dup2(nothing, fd)
    os.chdir("/")


def _reap(child: int, wrapper: int, say: int, service: Service | None, whole: bool) -> None:
    """Waits for the whole tree. Returns after its last process."""
    running, killed, end = True, False, 0
    while True:
        if service is not None and service.answer():
            _signal(wrapper, signal.SIGIO)
        killed = killed or (running and os.getppid() != wrapper) or (whole and not running)
        if killed:  # those that its children leave come to us, each with a SIGCHLD
            _kill_children(child if running else None)
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            if whole:
                _tell_end(wrapper, say, end)
            return
        if pid == 0:
            info = _wait_for_signal(service.pause() if service is not None else None)
            if info is not None and running and info.si_signo in PASSED_ON and os.getppid() == wrapper:
                _pass_on(info, child)
        elif pid == child:
            running, end = False, status
            if not whole:
                _tell_end(wrapper, say, end)


def _tell_end(wrapper: int, say: int, status: int) -> None:
    with suppress(BrokenPipeError):  # the wrapper has gone: what the program leaves is still to be killed
        os.write(say, status.to_bytes(4, "little"))
    _signal(wrapper, signal.SIGCHLD)


def _signal(wrapper: int, number: signal.Signals) -> None:
    if os.getppid() == wrapper:
        with suppress(ProcessLookupError):  # it was killed just now
            os.kill(wrapper, number)


def _wait_for_signal(seconds: float | None) -> signal.struct_siginfo | None:
    wanted = PASSED_ON | {signal.SIGCHLD, signal.SIGIO}
    return signal.sigwaitinfo(wanted) if seconds is None else signal.sigtimedwait(wanted, seconds)


def _kill_children(main: int | None) -> None:
    """Kills what is our child now, the program among them; that one alone where the kernel doesn't list them."""
    try:
        children = [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    except OSError:  # without CONFIG_PROC_CHILDREN (proc_pid_task(5))
        children = [main] if main is not None else []
    for pid in children:
        os.kill(pid, signal.SIGKILL)
