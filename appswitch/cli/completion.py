"""`appswitch completion`: what a shell needs to complete our command line. click makes it, and answers it.

The shell runs `appswitch` with `_APPSWITCH_COMPLETE` set at each TAB; what names there are, the trap handler is asked
(candidates.py).
"""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

VARIABLE = "_APPSWITCH_COMPLETE"
SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what has SHELL complete commands, options and the names of what runs.

    For bash, in ~/.bashrc: `eval "$(appswitch completion bash)"`. For zsh the same in ~/.zshrc, after compinit. For
    fish: `appswitch completion fish > ~/.config/fish/completions/appswitch.fish`.
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(ctx.find_root().command, {}, "appswitch", VARIABLE).source())
