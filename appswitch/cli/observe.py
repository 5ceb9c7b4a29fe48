"""`appswitch observe`: what happens, as lines for people or as JSON lines for programs."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import click

from appswitch.cli import candidates
from appswitch.cli.options import ask, connect, printable, socket_option
from appswitch.model import Kind

Row = dict[str, Any]

KINDS = [kind.value for kind in Kind]


@click.command()
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="JSON, an event a line.")
@click.option("--kind", "kinds", type=click.Choice(KINDS), multiple=True, metavar="KIND",
              help=f"Only these: {', '.join(KINDS)}.")  # fmt: skip
@click.option(
    "--app",
    metavar="APP",
    shell_complete=candidates.apps,
    help="Only those of this app, either side: its name, id or virtual IP.",
)
@click.option("-n", "--tail", metavar="N", type=click.IntRange(0), help="Only the last N of the recent events.")
@socket_option
def observe(
    socket: str | None, follow: bool, as_json: bool, kinds: tuple[str, ...], app: str | None, tail: int | None
) -> None:
    """Show what has happened: each connect, listen, deny, resolve.

    Without -f, connects that an app makes by itself, without asking the trap handler, are not among them.
    """
    arguments: dict[str, object] = {"follow": follow, "kinds": list(kinds), "app": app, "tail": tail}
    if not follow:
        _print(ask(socket, "observe", **arguments), as_json)
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it as it ends `tail -f`: 130 to a shell
    _print(connect(socket).stream("observe", arguments), as_json)


def _print(rows: Iterable[Row], as_json: bool) -> None:
    for row in rows:
        click.echo(json.dumps(row) if as_json else line_of(row))


def line_of(row: Row) -> str:
    """An event for people: when, what, who -> where; then the details."""
    time = datetime.fromisoformat(row["time"]).astimezone().strftime("%H:%M:%S.%f")[:-3]
    who = row["source"] or _app(row["name"], row["ip"])
    if row["kind"] == "node":
        rest = ""
    elif row["kind"] == "lost":
        rest = f"{row['count']} events: this reader is too slow"
    elif row["kind"] == "resolve":
        rest = f"{who}  {row['query']} {row['qtype'] or ''}".rstrip() + "".join(f" {each}" for each in row["answer"])
    elif row["server_app"] is not None or row["kind"] in ("connect", "refuse"):
        rest = f"{who} -> {_where(row)}"
    elif row["port"] is not None:
        rest = f"{who}  {_where(row)}"
    else:
        rest = f"{who}  " + " ".join(row["command"])
    details = [row["medium"], row["rule"] and f"rule {row['rule']}", row["errno"], row["reason"]]
    return printable("  ".join(part for part in (time, f"{row['kind']:<12}", rest.rstrip(), *details) if part))


def _app(name: str | None, ip: str | None) -> str:
    return f"{name} ({ip})" if name else ip or "unidentified"


def _where(row: Row) -> str:
    address = f"[{row['address']}]" if ":" in row["address"] else row["address"]
    name = f"{row['server_name']} " if row["server_name"] else ""
    return f"{name}{address}:{row['port']}/{row['proto']}"
