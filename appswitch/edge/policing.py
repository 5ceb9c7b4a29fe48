"""The policy in force, and how another one comes into force: SIGHUP has the file read again.

A file that can't be used changes nothing. A new policy advances the epoch: then neither a client's capabilities nor a
server's verdicts hold any longer, and both ask again (shim/epoch.h). Connections that are there go on, save
for those that a rule denies now and cuts.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import structlog
import trio
from attrs import evolve

from appswitch.core import policy_file
from appswitch.core.answers import Answers
from appswitch.core.policy import Policy, explain
from appswitch.edge.apps import Apps
from appswitch.edge.connections import Source, cut
from appswitch.errors import AppSwitchError
from appswitch.host.systemd import Manager
from appswitch.model import Address, App, Connection, Kind, Outside, Party
from appswitch.wire.dns import Found

log = structlog.get_logger()


class Policing:
    """Holds the policy of this host. file: None: the `grp` rule alone; egress: whether apps may leave by default."""

    def __init__(self, file: Path | None = None, egress: bool = True) -> None:
        """AppSwitchError `bad-policy` when the file can't be used."""
        self._file = file
        self._egress = egress
        self.policy = self._read()
        self.answers = Answers()

    def _read(self) -> Policy:
        return evolve(Policy() if self._file is None else _read(self._file), egress=self._egress)

    def learn(self, app: int, found: Found) -> None:
        """The app with this id was told what a name outside stands for."""
        self.answers.learn(app, found.name, found.addresses, found.ttl, trio.current_time())

    def names_of(self, ip: Address, app: App | None = None) -> tuple[str, ...]:
        """By which names an address outside was found; first those that `app` has asked for."""
        return self.answers.names_of(ip, trio.current_time(), app.id if app else None)

    def _reload(self, apps: Apps) -> bool:
        """Reads the file again; True: another policy is in force."""
        if self._file is None:
            return False
        try:
            self.policy = self._read()
        except AppSwitchError as error:
            log.error("the old policy stays in force", reason=error.message)
            return False
        apps.services_changed()
        rules, default = len(self.policy.rules), self.policy.default.value
        log.info("policy", file=str(self._file), rules=rules, default=default)  # who reads it may rely on it
        return True

    async def reload_on_signal(
        self,
        apps: Apps,
        snapshot: Source,
        manager: Manager,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Reloads at every SIGHUP, for ever. snapshot: the connections of `apps`; manager: is told meanwhile."""
        with trio.open_signal_receiver(signal.SIGHUP) as signals:
            task_status.started()
            async for _ in signals:
                manager.reloading()
                if self._reload(apps):
                    await self._cut(apps, snapshot)
                manager.ready()

    async def _cut(self, apps: Apps, snapshot: Source) -> None:
        """Ends what is denied now, where the rule says so. New ones are denied already: the snapshot has all."""
        ended: list[Connection] = []
        tell: list[Callable[[], None]] = []
        for each in await snapshot():
            client: Party | None = each.client or (Outside(each.source[0]) if each.source and each.listener else None)
            if client and each.dest:
                ip, port = each.dest
                server = each.server or Outside(ip, each.names)
                verdict = self.policy.decide(client, server, each.listener.port if each.listener else port, each.proto)
                if verdict.cut:
                    ended.append(each)
                    facts: dict[str, Any] = {"address": ip, "port": port, "proto": each.proto, "medium": each.medium}
                    facts["source"] = None if each.client else each.source
                    reason = explain(verdict, client, server) + ", and cuts the connection"
                    facts |= {"server": each.server, "rule": verdict.rule, "reason": reason}
                    tell.append(partial(apps.events.publish, Kind.DENY, each.client, **facts))
        left = await cut(ended) if ended else []
        for publish in tell:  # who hears of it may rely on it
            publish()
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
