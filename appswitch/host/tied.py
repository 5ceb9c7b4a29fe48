"""A program that ends with the process that started it: the kernel kills it (PR_SET_PDEATHSIG of prctl(2)).

The signal is set in the child, before exec keeps it; a preexec_fn would do so in a fork of a process with threads.

    python -m appswitch.host.tied PARENT PROGRAM ARG...
"""

from __future__ import annotations

import os
import sys

from appswitch.host.processes import die_with_parent


def command(*program: str) -> list[str]:
    """The command that runs `program`, tied to this process (and this thread of it, which should be its main one)."""
    return [sys.executable, "-m", __name__, str(os.getpid()), *program]


def main() -> None:
    """Becomes the program; ends with a reason on stderr when it can't be."""
    parent, *program = sys.argv[1:]
    die_with_parent()
    if os.getppid() != int(parent):  # it has gone before it could be tied to
        return
    try:
        os.execvp(program[0], program)
    except OSError as error:
        sys.exit(f"{program[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
