"""What several commands have: an option, and asking the trap handler."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import click

from appswitch.errors import AppSwitchError
from appswitch.host import control_client
from appswitch.host.control_client import ControlClient
from appswitch.host.paths import trap_socket

socket_option = click.option("--socket", metavar="PATH", help="The trap socket (also: APPSWITCH_SOCKET).")


def printable(text: str) -> str:
    """On one line, and without what would steer a terminal: an app may have said it."""
    return "".join(each if each.isprintable() else " " for each in text)


def connect(socket: str | None) -> ControlClient:
    """A connection to the trap handler. AppSwitchError when there is none."""
    trap = trap_socket(socket)
    client = control_client.connect(trap)
    if client is None:
        raise AppSwitchError(
            "no-server",
            f"no trap handler is running at {trap}",
            "start one with `appswitch serve`, or an app with `appswitch spawn`; --socket names another",
        )
    return client


def ask(socket: str | None, call: str, **arguments: object) -> list[dict[str, Any]]:
    """The rows that it answers with."""
    with closing(connect(socket)) as client:
        rows: list[dict[str, Any]] = client.call(call, arguments)
    return rows
