"""What there is: `ps`, `services`, `connections`, `nodes`, `resolve`. As a table for people, as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import click

from appswitch.cli import candidates
from appswitch.cli.options import Seconds, ask, printable, socket_option
from appswitch.errors import AppSwitchError

Row = dict[str, Any]

SILENT_FOR = 1.0  # seconds of waiting that need no word

NARROW = {
    "ps": ("id", "node", "name", "ip", "tags", "state", "pid", "command"),
    "services": ("name", "ip", "port", "proto", "app", "node", "tags", "medium", "scope", "state", "exposed"),
    "connections": (
        "client_app",
        "client_name",
        "client_ip",
        "client_port",
        "dest_ip",
        "dest_port",
        "server_app",
        "server_name",
        "state",
        "medium",
    ),
    "nodes": ("name", "state", "address", "gateway", "seq", "agreed"),
    "externals": ("name", "ip", "port", "proto", "backend", "node", "tags", "state", "health"),
    "resolve": ("name", "ip", "instances"),
    "doctor": ("level", "check", "message"),
    "compose ps": ("name", "service", "state", "pid", "listens", "exposed", "restarts", "status"),
}


def formats(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say how a list looks."""

    @wraps(function)
    def listed(output: str, as_json: bool, **others: Any) -> None:
        function(output="json" if as_json else output, **others)

    decorated: Callable[..., Any] = listed
    for option in (
        click.option("--no-headers", is_flag=True, help="Rows only."),
        click.option("--json", "as_json", is_flag=True, help="Short for -o json."),
        click.option("-o", "output", type=click.Choice(["table", "wide", "json"]), default="table", help="The format."),
    ):
        decorated = option(decorated)
    return decorated


def listing(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that every list has which the trap handler is asked for."""
    decorated: Callable[..., Any] = socket_option(formats(function))
    return decorated


@click.command()
@listing
def ps(socket: str | None, output: str, no_headers: bool) -> None:
    """List the apps."""
    show("ps", ask(socket, "ps"), output, no_headers)


@click.command()
@listing
def services(socket: str | None, output: str, no_headers: bool) -> None:
    """List what is served, an instance a line."""
    show("services", ask(socket, "services"), output, no_headers)


@click.command()
@listing
def connections(socket: str | None, output: str, no_headers: bool) -> None:
    """List the connections, as the kernel has them."""
    show("connections", ask(socket, "connections"), output, no_headers)


@click.command()
@click.option("--wait", is_flag=True, help="Wait until this host and all that are alive have the same tables.")
@click.option("--timeout", type=Seconds(), metavar="SECONDS", help="Wait no longer than this; then the status is 1.")
@listing
def nodes(wait: bool, timeout: float | None, socket: str | None, output: str, no_headers: bool) -> None:
    """List the hosts."""
    show("nodes", _agreed(socket, timeout) if wait else ask(socket, "nodes"), output, no_headers)


def _agreed(socket: str | None, timeout: float | None) -> list[Row]:
    """The hosts, once they agree; what takes longer than a moment is said."""
    first = SILENT_FOR if timeout is None else min(SILENT_FOR, timeout)
    try:
        return ask(socket, "nodes", wait=True, timeout=first)
    except AppSwitchError as error:
        if error.reason != "no-agreement" or first == timeout:
            raise
        click.echo(f"appswitch: waiting: {error.message}", err=True)
    return ask(socket, "nodes", wait=True, timeout=None if timeout is None else timeout - first)


@click.command()
@click.argument("name", shell_complete=candidates.apps)
@listing
def resolve(name: str, socket: str | None, output: str, no_headers: bool) -> None:
    """Show the virtual IP that NAME stands for."""
    show("resolve", ask(socket, "resolve", name=name), output, no_headers)


def show(kind: str, rows: list[Row], output: str, no_headers: bool) -> None:
    """Prints rows."""
    if output == "json":
        click.echo(json.dumps(rows, indent=2))
        return
    print_table(rows, NARROW[kind] if output == "table" or not rows else tuple(rows[0]), no_headers)


def print_table(rows: list[Row], columns: Sequence[str], no_headers: bool) -> None:
    """Prints these columns, under their names."""
    table = [] if no_headers else [[column.upper() for column in columns]]
    table += [[_cell(row[column]) for column in columns] for row in rows]
    for line in _align(table):
        click.echo(line)


def _cell(value: object) -> str:
    if isinstance(value, list):
        return printable(" ".join(map(str, value))) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else printable(str(value))


def _align(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
