"""Programs that LD_PRELOAD can't reach: the tracer (shim/tracer) brings the shim into them.

It is a program that becomes the other one, so it is put before the command. From then on the program's calls are
trapped in one of two ways (shim/tracer/way.h): by ptrace, or, where this kernel can (`notify`), by signals that it
sends to the thread itself. What starts such a program under the shim hands it on (shim/hand_on.c).
"""

from __future__ import annotations

import os

from appswitch.errors import AppSwitchError
from appswitch.host import elf, seccomp
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
    """How programs are trapped. AppSwitchError when APPSWITCH_TRACER asks for what isn't there."""
    wanted = os.environ.get(VARIABLE) or (NOTIFY if seccomp.can_trap() else PTRACE)
    if wanted not in (NOTIFY, PTRACE):
        message = f"{VARIABLE}={wanted}: there is no such way to trap programs"
        raise AppSwitchError("no-tracer", message, f"it is {NOTIFY} or {PTRACE}; leave it out for the better one")
    if wanted == NOTIFY and not seccomp.can_trap():
        message = f"{VARIABLE}={wanted}: this kernel doesn't tell threads of their calls (SECCOMP_RET_TRAP)"
        raise AppSwitchError("no-tracer", message, f"{PTRACE} is the way that works: leave {VARIABLE} out")
    return wanted


def reason() -> str:
    """Why it is this way."""
    if os.environ.get(VARIABLE):
        return f"as {VARIABLE} says"
    return "this kernel tells threads of their own calls" if seccomp.can_trap() else "this kernel knows no other way"


def traced(command: list[str]) -> list[str]:
    """The command that runs `command` traced."""
    return [str(tracer_path()), elf.which(command[0]) or command[0], *command]
