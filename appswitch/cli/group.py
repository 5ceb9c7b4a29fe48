"""The group of commands, and where each is. What they have in common as they fail: cli/failing.py."""

from __future__ import annotations

import importlib

import click

from appswitch.host.paths import shim_path

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
