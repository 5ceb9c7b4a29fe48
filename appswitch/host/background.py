"""Starting a trap handler in the background, as tmux starts its server."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

from appswitch.errors import AppSwitchError
from appswitch.host import systemd
from appswitch.host.control_client import ControlClient, connect
from appswitch.host.own_sockets import had_lasting
from appswitch.host.paths import make_directory
from appswitch.host.processes import tell

SUCCESSOR_WITHIN = 5.0  # seconds; programs that are there wait as long for one


def start_server(trap: Path, *flags: str) -> ControlClient:
    """Starts `appswitch serve` for this user, unless another process does so just now. Returns a connection to it.

    It goes when its last app has gone. Where the one before was to last, its restart is waited for first: ours would
    take its apps, and its place. AppSwitchError with the end of the log when it doesn't start.
    """
    make_directory(trap)
    with trap.with_name(trap.name + ".start").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        client = connect(trap)
        if client is None and had_lasting(trap):
            tell(f"appswitch: the trap handler at {trap} has gone: waiting {SUCCESSOR_WITHIN:.0f} s for another")
            client = _wait_for_another(trap)
        if client is not None:
            return client
        log = trap.with_name(trap.name + ".log")
        tell(f"appswitch: no trap handler is running: starting one (socket {trap}, log {log})")
        ready, write_end = os.pipe()
        command = [sys.executable, "-m", "appswitch", "serve", "--socket", str(trap), "--exit-when-idle",
                   "--ready-fd", str(write_end), *flags]  # fmt: skip
        with log.open("ab") as output:
            subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, pass_fds=[write_end],
                start_new_session=True, cwd="/",
                env=systemd.without(os.environ),
            )  # fmt: skip
        os.close(write_end)
        os.read(ready, 64)
        os.close(ready)
        client = connect(trap)  # be it that another one was quicker
        if client is None:
            end = log.read_text(errors="replace").strip().splitlines()[-3:]
            raise AppSwitchError("no-server", "the trap handler didn't start: " + " ".join(end), f"its log is {log}")
        return client


def _wait_for_another(trap: Path) -> ControlClient | None:
    deadline, client = time.monotonic() + SUCCESSOR_WITHIN, None
    while client is None and time.monotonic() < deadline:
        time.sleep(0.05)
        client = connect(trap)
    return client
