"""What TAB offers beyond commands and options: names of apps, services and hosts, as the trap handler knows them.

Whoever types waits for it: where no trap handler answers in WITHIN seconds, nothing is offered, and nothing is said.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from appswitch.errors import AppSwitchError
from appswitch.host.control_client import ControlClient
from appswitch.host.paths import trap_socket

if TYPE_CHECKING:
    import click
    from click.shell_completion import CompletionItem

WITHIN = 0.5

Row = dict[str, Any]


def _rows(ctx: click.Context, call: str) -> list[Row]:
    try:
        with closing(ControlClient(trap_socket(ctx.params.get("socket")))) as client:
            client.set_timeout(WITHIN)
            rows: list[Row] = client.call(call)
    except (AppSwitchError, OSError):
        return []
    return rows


def _fitting(words: Iterable[str | None], incomplete: str) -> list[str]:
    return sorted({word for word in words if word and word.startswith(incomplete)})


def from_field(call: str, field: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Offers the values of a field of a list: those of `name` in `ps`, say."""

    def complete(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
        return _fitting((row[field] for row in _rows(ctx, call)), incomplete)

    return complete


apps = from_field("ps", "name")
externals = from_field("externals", "name")


def services(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Offers NAME:PORT of what is served."""
    rows = _rows(ctx, "services")
    return _fitting((row["name"] and f"{row['name']}:{row['port']}" for row in rows), incomplete)


def command(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offers programs for the first word, and files."""
    from click.shell_completion import CompletionItem

    offered = [CompletionItem(incomplete, type="file")]
    if not ctx.params.get("command") and "/" not in incomplete:
        offered += [CompletionItem(each) for each in _fitting(_programs(), incomplete or "?")]
    return offered


def _programs() -> Iterable[str]:
    for directory in os.get_exec_path():
        try:
            yield from (each.name for each in Path(directory).iterdir() if os.access(each, os.X_OK))
        except OSError:  # PATH may name what isn't there
            continue
