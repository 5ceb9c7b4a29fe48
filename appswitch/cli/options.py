"""Options that several commands have."""

from __future__ import annotations

import click

socket_option = click.option("--socket", metavar="PATH", help="The trap socket (also: APPSWITCH_SOCKET).")
