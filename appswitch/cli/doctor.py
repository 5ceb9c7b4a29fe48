"""`appswitch doctor`: what this machine allows, and what would keep a program from working."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import click

from appswitch.cli.show import Row, listing, show
from appswitch.host import doctor as checks
from appswitch.host.paths import shim_path, trap_socket
from appswitch.wire import trap


@click.command()
@click.argument("programs", metavar="[PROGRAM]...", nargs=-1)
@listing
def doctor(programs: tuple[str, ...], socket: str | None, output: str, no_headers: bool) -> None:
    """Say what this machine allows, and whether PROGRAMs can be trapped.

    Exit status 1: something is a problem.
    """
    machine = checks.Machine(trap_socket(socket), shim_path(), trap.SNDBUF, trap.BACKLOG, os.geteuid())
    findings = [*checks.examine(machine), *map(checks.examine_program, programs)]
    rows = [each._asdict() for each in findings]
    show("doctor", rows if output == "json" else [*_lines(rows)], output, no_headers)
    sys.exit(any(each.level == checks.PROBLEM for each in findings))


def _lines(rows: list[Row]) -> Iterator[Row]:
    """With each hint under what it is about."""
    for row in rows:
        yield {key: row[key] for key in row if key != "hint"}
        if row["hint"] and row["level"] != checks.OK:
            yield {"level": "", "check": "", "message": f"hint: {row['hint']}"}
