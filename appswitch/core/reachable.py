"""Who may reach an app, and why: each of its services, judged for each app that there is."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from appswitch.core.policy import Policy, Verdict, explain
from appswitch.core.service_table import ServiceTable
from appswitch.model import App, Listener, Scope

PRIVATE = "scope"
"""The name of what decides where a listener is bound to loopback."""


@frozen
class Reachability:
    """reason: in words."""

    client: App
    listener: Listener
    allowed: bool
    rule: str
    reason: str


def who_reaches(table: ServiceTable, policy: Policy, server: App) -> Iterator[Reachability]:
    """All pairs of a service of `server` and an app (itself aside), in the order of services, then of names."""
    clients = [each for each in table.apps.values() if each.id != server.id and not each.external]
    clients.sort(key=lambda app: (app.name is None, app.name or "", app.node, app.number))
    for listener in table.services([server]):
        for client in clients:
            yield _judge(policy, client, listener)


def _judge(policy: Policy, client: App, listener: Listener) -> Reachability:
    server = listener.app
    if listener.scope is Scope.APP and client.ip != server.ip:
        where = f"bound to {listener.ip}" if server.reachable else "of an app with neither name nor IP"
        return Reachability(client, listener, False, PRIVATE, f"it is {where}: only apps of its virtual IP see it")
    verdict: Verdict = policy.decide(client, server, listener.port, listener.protocol.value)
    return Reachability(client, listener, verdict.allowed, verdict.rule, explain(verdict, client, server))
