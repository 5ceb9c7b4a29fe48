"""The group of commands, and what is common to them: where they are, and how an error is shown."""

from __future__ import annotations

import importlib
import os
import sys

import click

from appswitch.errors import AppSwitchError
from appswitch.host.paths import shim_path
from appswitch.host.processes import tell

# command -> the module in appswitch.cli that has it
COMMANDS = {
    "serve": "serve",
    "spawn": "spawn",
    "ps": "show",
    "services": "show",
    "connections": "show",
    "nodes": "show",
    "resolve": "show",
    "observe": "observe",
    "why": "why",
    "doctor": "doctor",
    "drain": "drain",
    "compose": "compose",
    "external": "external",
    "completion": "completion",
}
USAGE = 2
BAD_ARGUMENTS = (
    "bad-ip",
    "bad-name",
    "bad-tag",
    "bad-service",
    "bad-socket",
    "bad-upstream",
    "bad-expose",
    "bad-bypass",
    "bad-backend",
    "bad-host",
    "no-user",
)
"""Reasons of errors that are the command line's (exit status 2)."""


class LazyGroup(click.Group):
    """Imports a command's module when the command is used; shows AppSwitchErrors with their hints."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module("appswitch.cli." + COMMANDS[cmd_name])
        command: click.Command = getattr(module, cmd_name)
        return command


def _print_shim_path(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(shim_path())
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--shim-path", is_flag=True, is_eager=True, expose_value=False, callback=_print_shim_path,
              help="Print the path of the preload library and exit.")  # fmt: skip
@click.version_option(package_name="appswitch")
def cli() -> None:
    """Give any unmodified program its own IP, name and tags, without touching the network."""


def fail(error: AppSwitchError, status: int = 1) -> None:
    """Says what went wrong and ends with `status`."""
    tell(f"appswitch: {error.message}" + (f"\nhint: {error.hint}" if error.hint else ""))
    sys.exit(status)


def main() -> None:
    """The entry point of `appswitch`."""
    try:
        cli(prog_name="appswitch")
    except AppSwitchError as error:
        fail(error, USAGE if error.reason in BAD_ARGUMENTS else 1)
    except BrokenPipeError:  # `appswitch ps | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(141)
    except OSError as error:
        fail(AppSwitchError("system", str(error)))
