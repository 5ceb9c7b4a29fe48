"""The external servers that are registered on this node (core/external.py), and the file that keeps them.

The file is in the state directory: what is registered outlives us and the machine. It is written anew with each change,
before the change counts; one that can't be read is kept aside.
"""

from __future__ import annotations

import os
from pathlib import Path

import structlog
from attrs import define, field

from appswitch.core import external
from appswitch.edge.apps import Apps
from appswitch.edge.healths import GatewayHealths
from appswitch.edge.journal import free_name
from appswitch.errors import AppSwitchError
from appswitch.model import App, Kind
from appswitch.wire import externals as wire
from appswitch.wire.externals import Kept

FILE = "externals.json"

log = structlog.get_logger()


@define
class Externals:
    """directory: None: nothing is kept; healths: what is known of their backends."""

    apps: Apps
    directory: Path | None
    healths: GatewayHealths
    _kept: dict[str, Kept] = field(factory=dict)

    def load(self) -> None:
        """Registers what was kept. What can't be now, because its name stands for another IP, is still kept."""
        if self.directory is None:
            return
        path = self.directory / FILE
        try:
            kept = wire.decode(path.read_bytes())
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            aside = free_name(path)
            path.rename(aside)
            log.warning("the external servers of this node can't be read", reason=str(error), kept=str(aside))
            return
        for each in kept:
            self._kept[each.name] = each
            try:
                self._register(each)
            except AppSwitchError as error:
                log.warning("an external server can't be had back", name=each.name, reason=error.message)

    def add(self, kept: Kept) -> App:
        """Registers one. AppSwitchError when it can't be, or can't be kept."""
        app = self._register(kept)
        assert app.name is not None
        try:
            self._write({**self._kept, app.name: kept})
        except AppSwitchError:
            self.apps.table.remove_app(app.id)
            raise
        self.apps.services_changed()
        self.apps.events.publish(Kind.APP, app, reason="an external server")
        return app

    def remove(self, name: str) -> None:
        """AppSwitchError `unknown-external`: none of that name is registered here, but perhaps on others."""
        table = self.apps.table
        app = external.own(table, name)
        if app is None and name not in self._kept:
            others = sorted({each.node for each in table.externals.values() if each.name == name})
            hint = f"remove it where it is registered: on {', '.join(others)}" if others else "see `external list`"
            raise AppSwitchError("unknown-external", f"no external server {name} is registered on this node", hint)
        self._write({key: each for key, each in self._kept.items() if key != name})
        if app is not None:
            table.remove_app(app.id)
            self.apps.services_changed()
            self.apps.events.publish(Kind.APP_END, app, reason="an external server")

    def _register(self, kept: Kept) -> App:
        wanted = external.read(kept.name, kept.backends, kept.ip, kept.tags)
        return external.register(self.apps.table, wanted, kept.started)

    def _write(self, kept: dict[str, Kept]) -> None:
        if self.directory is not None:
            path = self.directory / FILE
            new = path.with_name(FILE + ".new")
            try:
                new.write_bytes(wire.encode(kept.values()))
                with new.open("rb") as file:
                    os.fsync(file.fileno())
                new.rename(path)
            except OSError as error:
                raise AppSwitchError(
                    "not-kept", f"{path} can't be written: {error.strerror}", "nothing has changed"
                ) from None
        self._kept = kept
