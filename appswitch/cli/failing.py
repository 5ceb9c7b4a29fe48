"""How a command tells that it failed: an AppSwitchError with its hint, and an exit status."""

from __future__ import annotations

import sys

from appswitch.host.processes import tell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from appswitch.errors import AppSwitchError

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


def fail(error: AppSwitchError, otherwise: int = 1) -> NoReturn:
    """Says what went wrong and ends: with USAGE if the command line was wrong, else with `otherwise`."""
    tell(f"appswitch: {error.message}" + (f"\nhint: {error.hint}" if error.hint else ""))
    sys.exit(USAGE if error.reason in BAD_ARGUMENTS else otherwise)
