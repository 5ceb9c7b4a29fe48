"""Who may reach whom: the `grp` rule (DESIGN section 2, "Tags"; the paper, Figure 1)."""

from __future__ import annotations

from appswitch.model import App

GROUP = "grp"


def may_reach(client: App, server: App) -> bool:
    """An app reaches itself, servers without a group, and servers that share one of its groups."""
    groups = server.values(GROUP)
    return client.id == server.id or not groups or bool(groups & client.values(GROUP))
