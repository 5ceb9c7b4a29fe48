"""The keeper of a container: what `spawn` is for its program, for processes that somebody else has started.

The trap handler starts it when a container first calls (edge/containers.py). It joins the container's network
namespace, makes that the app's, and stays as long as a process is in there, whether trap handlers come or go.

    python -m appswitch.host.container TRAP PID COOKIE   (and what the app is to be, as JSON, on stdin; the answer, too)
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
from pathlib import Path

from appswitch.errors import AppSwitchError
from appswitch.host import containers, namespace, processes
from appswitch.host.control_client import ControlClient
from appswitch.host.furnishing import furnish
from appswitch.host.keeper import Keeper

READY = b"ready"


def main() -> None:
    """Until nobody is left in the namespace. An answer other than READY is the reason for not being it."""
    trap, pid, cookie = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    with socket.socket(fileno=0) as handler:
        try:
            keeper = _register(trap, pid, cookie, json.loads(handler.recv(1 << 16)))
        except AppSwitchError as error:
            handler.send(error.message.encode())
            return
        except OSError as error:
            handler.send(f"its network namespace can't be joined: {error.strerror}".encode())
            return
        handler.send(READY)
        processes.let_go()
    _keep(keeper)


def _register(trap: Path, pid: int, cookie: int, arguments: dict[str, object]) -> Keeper:
    client = ControlClient(trap)
    ticket = client.call("ticket")
    namespace.join(pid)
    if namespace.cookie() != cookie:
        raise AppSwitchError("gone", "the process that called has gone")
    keeper, _ = furnish(trap, {**arguments, "ticket": ticket})
    client.close()
    return keeper


def _keep(keeper: Keeper) -> None:
    inside = containers.namespace_of("self")
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGIO, lambda *_: None)
    signal.set_wakeup_fd(wake)
    keeper.signal_requests()
    while (pid := containers.somebody_in(inside)) is not None:
        try:
            process = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        _until_ended(process, woken, keeper)
        os.close(process)


def _until_ended(process: int, woken: int, keeper: Keeper) -> None:
    waiting = select.poll()
    waiting.register(process, select.POLLIN)
    waiting.register(woken, select.POLLIN)
    ready: list[int] = []
    while process not in ready:
        keeper.answer()
        pause = keeper.pause()
        ready = [fd for fd, _ in waiting.poll(None if pause is None else 1000 * pause)]
        if woken in ready:
            os.read(woken, 4096)


if __name__ == "__main__":
    main()
