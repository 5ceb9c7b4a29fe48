"""What the pages say: `/api/...` and `/healthz`."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

import msgspec
import trio
from attrs import define

from appswitch.core.reachable import Reachability, who_reaches
from appswitch.edge.http import Request, Response
from appswitch.edge.questions import AT_ONCE, Questions, Row
from appswitch.errors import AppSwitchError
from appswitch.web.site import JSON
from appswitch.wire import control

MOST_CLIENTS = 2000  # rows of who may reach an app


@define
class Pages:
    """obstacle: why this host doesn't serve as it should; None: it does."""

    questions: Questions
    obstacle: Callable[[], str | None]

    async def why(self, request: Request) -> Row:
        """`?client=X&dest=Y:PORT`: what `appswitch why X Y:PORT --json` prints."""
        client, dest = request.query.get("client"), request.query.get("dest")
        if not client or not dest:
            raise AppSwitchError("bad-query", "client and dest are needed", "?client=web&dest=db:5432")
        return await self.questions.why(client, dest)

    async def app(self, request: Request) -> Row:
        """`/api/app/ID`: an app, its siblings, what it serves, and who may reach that."""
        asked = self.questions
        table, text = asked.table, request.path.removeprefix("/api/app/")
        app = next(iter(table.apps_called(text)), None)
        if app is None:
            raise AppSwitchError("unknown-app", f"there is no app {text!r}", "`appswitch ps` lists the apps")
        siblings = [each for each in table.apps_at(app.ip) if each.id != app.id]
        clients = []
        for each in who_reaches(table, asked.policing.policy, app):
            clients.append(_client_row(each))
            if len(clients) == MOST_CLIENTS:
                break
            if len(clients) % AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
        return {
            "app": control.app_row(app, table.state_of(app)),
            "siblings": [control.app_row(each, table.state_of(each)) for each in siblings],
            "services": [asked.service_row(each) for each in table.services([app])],
            "clients": clients,
        }

    async def health(self, _request: Request) -> Response:
        """200: this host serves its apps, and knows what the others serve; 503: not yet, or not any more."""
        reason = self.obstacle()
        body = {"status": "ok" if reason is None else "unavailable", "version": version("appswitch"), "reason": reason}
        return Response(200 if reason is None else 503, msgspec.json.encode(body), JSON)


def _client_row(each: Reachability) -> Row:
    client, listener = each.client, each.listener
    return {
        "app": client.number,
        "node": client.node,
        "name": client.name,
        "ip": str(client.ip),
        "port": listener.port,
        "proto": listener.protocol.value,
        "allowed": each.allowed,
        "rule": each.rule,
        "reason": each.reason,
    }
