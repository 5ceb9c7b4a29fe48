"""`appswitch drain`: an instance gets no new connections, and those that it has come to their end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Collection

import trio
from attrs import define

from appswitch.edge.apps import Apps
from appswitch.errors import AppSwitchError
from appswitch.model import App, Connection

EVERY = 0.1  # seconds between two looks, or this many times as long as one takes:
COSTS = 10
LOOKS = 2  # a client that has just looked at the epoch may connect a moment later


@define
class Draining:
    """snapshot: all connections of apps."""

    apps: Apps
    snapshot: Callable[[], Awaitable[list[Connection]]]

    def start(self, text: str) -> list[App]:
        """Takes the apps of this node that `text` (an id, a name or an IP) calls out of choice.

        AppSwitchError `unknown-app`, or `elsewhere`: all of them run on other nodes.
        """
        return self._drain(text, True)

    def undo(self, text: str) -> list[App]:
        """Puts it back."""
        return self._drain(text, False)

    def _drain(self, text: str, draining: bool) -> list[App]:
        apps = self._called(text)
        self.apps.table.drain(apps, draining)
        for app in apps:
            self.apps.journal.set_draining(app, draining)
        self.apps.services_changed()
        return apps

    async def left(self, apps: Collection[App]) -> Counter[int]:
        """How many connections each has from others. App id -> number."""
        ids = {app.id for app in apps}
        return Counter(
            each.server.id
            for each in await self.snapshot()
            if each.server is not None and each.server.id in ids and each.client != each.server
        )

    async def wait(self, apps: Collection[App], timeout: float) -> AppSwitchError | None:  # noqa: ASYNC109 - a call's
        """Until none is left; else what came between: `timeout` seconds, or that somebody put one of them back."""
        deadline = trio.current_time() + timeout
        none = 0
        while True:
            if not all(self._is_draining(app) for app in apps):
                return AppSwitchError("not-drained", "it was put back into choice meanwhile")
            start = trio.current_time()
            left = (await self.left(apps)).total()
            none = 0 if left else none + 1
            if none == LOOKS:
                return None
            if left and trio.current_time() >= deadline:
                break
            pause = max(EVERY, COSTS * (trio.current_time() - start))
            await trio.sleep(min(pause, deadline - trio.current_time()) if left else pause)
        return AppSwitchError(
            "not-drained",
            f"{left} {'connection is' if left == 1 else 'connections are'} left after {timeout:g} s",
            "`appswitch connections` lists them; no new ones come: `appswitch drain` waits again, --undo ends that",
        )

    def _is_draining(self, app: App) -> bool:
        """One that has ended is drained, too."""
        return app.id in self.apps.table.draining or app.id not in self.apps.table.apps

    def _called(self, text: str) -> list[App]:
        found = self.apps.table.apps_called(text)
        if not found:
            raise AppSwitchError("unknown-app", f"there is no app {text!r}", "`appswitch ps` lists the apps")
        apps = [app for app in found if self.apps.table.is_local(app)]
        if not apps:
            nodes = ", ".join(sorted({app.node for app in found}))
            raise AppSwitchError("elsewhere", f"app {text!r} runs on {nodes}", "drain it there")
        return apps
