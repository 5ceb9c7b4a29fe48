"""The answer to `appswitch why` as the control protocol has it."""

from __future__ import annotations

from typing import Any

from appswitch.core.policy import explain
from appswitch.core.route import Judged
from appswitch.core.why import Why
from appswitch.model import App, Party


def why_row(dest: str, why: Why) -> dict[str, Any]:
    """verdict: allow, audit, deny, unreachable, outside (allowed there), bypass (allowed, and so by --bypass), or dns
    (the app's DNS server answers).

    dest: as it was asked for; others: further apps that the client may be; rule, reason: of the first candidate that
    may be reached, else of the first one, or why nothing is there.
    """
    client, *others = why.clients
    first = why.decisive
    reason = why.told.reason or (first and _reason(client, first))
    app = client if isinstance(client, App) else None
    return {
        "client_app": app and app.number,
        "client_node": app and app.node,
        "client_name": app and app.name,
        "client_ip": str(client.ip),
        "others": [f"{each.node}/{each.number}" for each in others if isinstance(each, App)],
        "dest": dest,
        "ip": str(why.ip),
        "port": why.port,
        "proto": why.protocol.value,
        "verdict": why.told.verdict,
        "allowed": why.allowed,
        "rule": why.rule,
        "reason": reason,
        "candidates": [_candidate(client, each) for each in why.told.judged],
    }


def _candidate(client: Party, judged: Judged) -> dict[str, Any]:
    app = judged.listener.app
    return {
        "app": app.number,
        "name": app.name,
        "ip": str(app.ip),
        "port": judged.listener.port,
        "node": app.node,
        "tags": [f"{key}={value}" for key, value in app.tags],
        "allowed": judged.verdict.allowed,
        "rule": judged.verdict.rule,
        "reason": _reason(client, judged),
    }


def _reason(client: Party, judged: Judged) -> str:
    return explain(judged.verdict, client, judged.listener.app)
