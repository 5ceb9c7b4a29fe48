"""The policy in force, and how another one comes into force: SIGHUP has the file read again.

A file that can't be used changes nothing. A new policy advances the epoch: then neither a client's capabilities nor a
server's verdicts hold any longer, and both ask again (shim/epoch.h).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import structlog
import trio

from appswitch.core import policy_file
from appswitch.core.policy import Policy
from appswitch.errors import AppSwitchError

log = structlog.get_logger()


class Policing:
    """Holds the policy of this host. file: None: the `grp` rule alone."""

    def __init__(self, file: Path | None = None) -> None:
        """AppSwitchError `bad-policy` when the file can't be used."""
        self._file = file
        self.policy = Policy() if file is None else _read(file)

    def reload(self) -> bool:
        """Reads the file again; False when it stays as it was."""
        if self._file is None:
            return False
        try:
            self.policy = _read(self._file)
        except AppSwitchError as error:
            log.error("the old policy stays in force", reason=error.message)
            return False
        log.info("policy", file=str(self._file), rules=len(self.policy.rules), default=self.policy.default.value)
        return True

    async def reload_on_signal(
        self, changed: Callable[[], None], task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Reloads at every SIGHUP, for ever. changed: called when there is another policy."""
        with trio.open_signal_receiver(signal.SIGHUP) as signals:
            task_status.started()
            async for _ in signals:
                if self.reload():
                    changed()


def _read(file: Path) -> Policy:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise AppSwitchError(
            "bad-policy", f"{file} can't be read: {os.strerror(error.errno or 0)}", "name another file with --policy"
        ) from None
    return policy_file.parse(content, str(file))
