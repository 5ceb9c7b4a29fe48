"""Programs that LD_PRELOAD can't reach: the tracer (shim/tracer) brings the shim into them.

It is a program that becomes the other one, so it is put before the command. What such a program starts is traced, too;
what starts one under the shim hands it on (shim/hand_on.c).
"""

from __future__ import annotations

import os
import shutil

from appswitch.errors import AppSwitchError
from appswitch.host.elf import Obstacle
from appswitch.host.paths import tracer_path

REACHES = ("static", "go")  # reasons of host/elf.py
VARIABLE = "APPSWITCH_TRACER"
PTRACE, NOTIFY = "ptrace", "notify"


def is_there() -> bool:
    """Whether it was built: it knows x86-64 only."""
    return tracer_path().exists()


def reaches(obstacle: Obstacle) -> bool:
    """Whether the tracer gets past it."""
    return obstacle.reason in REACHES and is_there()


def way() -> str:
    """How programs are traced. AppSwitchError when APPSWITCH_TRACER asks for another way than there is."""
    wanted = os.environ.get(VARIABLE) or PTRACE
    if wanted == PTRACE:
        return PTRACE
    message = f"{VARIABLE}={wanted}: " + ("isn't there yet" if wanted == NOTIFY else "there is no such way to trace")
    raise AppSwitchError("no-tracer", message, f"{PTRACE} is the way that works: leave {VARIABLE} out")


def traced(command: list[str]) -> list[str]:
    """The command that runs `command` traced."""
    return [str(tracer_path()), shutil.which(command[0]) or command[0], *command]
