"""The entry point of `appswitch`. Start-up matters to `spawn`: click is imported for whoever needs it."""

from __future__ import annotations

import os
import sys

from appswitch.cli.failing import fail
from appswitch.errors import AppSwitchError


def main() -> None:
    """Does what the command line says."""
    words = sys.argv[1:]
    if words[:1] == ["spawn"]:
        from appswitch.cli import starting

        options = starting.read(words[1:])
        if options is not None:
            starting.start(options)
    from appswitch.cli.group import cli

    try:
        cli(prog_name="appswitch")
    except AppSwitchError as error:
        fail(error)
    except BrokenPipeError:  # `appswitch ps | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(141)
    except OSError as error:
        fail(AppSwitchError("system", str(error)))
