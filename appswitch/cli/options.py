"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path

import click

from appswitch.errors import AppSwitchError
from appswitch.host import paths

socket_option = click.option("--socket", metavar="PATH", help="The trap socket (also: APPSWITCH_SOCKET).")


def trap_path(given: str | None) -> Path:
    """The trap socket's path. AppSwitchError when it can't be one."""
    try:
        return paths.trap_socket(given)
    except ValueError as error:
        raise AppSwitchError("bad-socket", str(error), "name a shorter one") from None
