"""Starting a trap handler in the background, as tmux starts its server."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

from appswitch.errors import AppSwitchError
from appswitch.host import systemd
from appswitch.host.control_client import ControlClient, connect
from appswitch.host.paths import make_directory
from appswitch.host.processes import tell


def start_server(trap: Path, *flags: str) -> ControlClient:
    """Starts `appswitch serve` for this user, unless another process does so just now. Returns a connection to it.

    It goes when its last app has gone. AppSwitchError with the end of its log when it doesn't start.
    """
    make_directory(trap)
    with trap.with_name(trap.name + ".start").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        client = connect(trap)
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
        said = os.read(ready, 64)
        os.close(ready)
        client = connect(trap) if said else None
        if client is None:
            end = log.read_text(errors="replace").strip().splitlines()[-3:]
            raise AppSwitchError("no-server", "the trap handler didn't start: " + " ".join(end), f"its log is {log}")
        return client
