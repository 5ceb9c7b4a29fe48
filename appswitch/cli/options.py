"""What several commands have: an option, and asking the trap handler."""

from __future__ import annotations

import math
from contextlib import closing
from typing import Any

import click

from appswitch.errors import AppSwitchError
from appswitch.host import control_client
from appswitch.host.control_client import ControlClient
from appswitch.host.paths import trap_socket

socket_option = click.option("--socket", metavar="PATH", help="The trap socket (also: APPSWITCH_SOCKET).")


class Seconds(click.FloatRange):
    """A time to wait."""

    def __init__(self) -> None:
        super().__init__(min=0)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Infinity and NaN are floats to Python, and nothing to wait for."""
        seconds = super().convert(value, param, ctx)
        if not math.isfinite(seconds):
            self.fail(f"{value!r} is not a number of seconds.", param, ctx)
        return seconds


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
