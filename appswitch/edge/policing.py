"""The policy in force, and how another one comes into force: SIGHUP has the file read again.

A file that can't be used changes nothing. A new policy advances the epoch: then neither a client's capabilities nor a
server's verdicts hold any longer, and both ask again (shim/epoch.h). Connections that are there go on, save
for those that a rule denies now and cuts.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import structlog
import trio

from appswitch.core import policy_file
from appswitch.core.policy import Policy, explain
from appswitch.edge.apps import Apps
from appswitch.edge.connections import Source, cut
from appswitch.errors import AppSwitchError
from appswitch.model import Kind

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
        self, apps: Apps, snapshot: Source, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Reloads at every SIGHUP, for ever. snapshot: the connections of `apps`."""
        with trio.open_signal_receiver(signal.SIGHUP) as signals:
            task_status.started()
            async for _ in signals:
                if self.reload():
                    apps.services_changed()
                    await self._cut(apps, snapshot)

    async def _cut(self, apps: Apps, snapshot: Source) -> None:
        """Ends what is denied now, where the rule says so. New ones are denied already: the snapshot has all."""
        ended = []
        for each in await snapshot():
            if each.client and each.server and each.dest:
                ip, port = each.dest
                verdict = self.policy.decide(each.client, each.server, port, each.proto)
                if verdict.cut:
                    ended.append(each)
                    facts = {"address": ip, "port": port, "proto": each.proto, "medium": each.medium}
                    reason = explain(verdict, each.client, each.server) + ", and cuts the connection"
                    apps.events.publish(
                        Kind.DENY, each.client, server=each.server, rule=verdict.rule, reason=reason, **facts
                    )
        left = await cut(ended) if ended else []
        if left:
            log.warning("the kernel doesn't let us cut all connections", left=len(left), of=len(ended))


def _read(file: Path) -> Policy:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise AppSwitchError(
            "bad-policy", f"{file} can't be read: {os.strerror(error.errno or 0)}", "name another file with --policy"
        ) from None
    return policy_file.parse(content, str(file))
