"""`appswitch drain`: an instance is taken out of choice."""

from __future__ import annotations

import click

from appswitch.cli import candidates
from appswitch.cli.options import Seconds, ask, socket_option


@click.command()
@click.argument("app", shell_complete=candidates.apps)
@click.option("--undo", is_flag=True, help="Put it back.")
@click.option("--no-wait", is_flag=True, help="Don't wait until its connections are at an end.")
@click.option("--timeout", type=Seconds(), metavar="SECONDS", help="How long to wait.  [default: for ever]")
@socket_option
def drain(app: str, undo: bool, no_wait: bool, timeout: float | None, socket: str | None) -> None:
    """Let APP get no new connections, and wait until those that it has are at an end.

    APP is a name (then all its instances), an id or an IP. New connections go to other instances; where there is none,
    they are refused. The exit status is 1 when some are left after SECONDS; APP goes on draining then.
    """
    for row in ask(socket, "drain", app=app, undo=undo, wait=not no_wait, timeout=timeout):
        left = row["connections"]
        said = "takes connections again" if undo else f"is draining, {left} left" if left else "is drained"
        click.echo(f"{row['name'] or row['ip']} (app {row['app']}) {said}")
