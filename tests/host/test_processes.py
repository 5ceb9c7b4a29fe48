"""The keeper, in what goes too quickly for a test of `spawn` (tests/test_spawn.py) to meet it for sure."""

from __future__ import annotations

import subprocess
import sys

from tests.harness import eventually, has_ended

# What the keeper kills has ended before it looks again.
KILLED_AT_ONCE = """
import os
from appswitch.host import processes
kill = processes._kill_children
def kill_and_wait(main):
    kill(main)
    if main is not None:
        os.waitid(os.P_PID, main, os.WEXITED | os.WNOWAIT)
processes._kill_children = kill_and_wait
processes.run(lambda: os.execvp("sh", ["sh", "-c", "sleep 99 & echo $!; exec sleep 99"]), lambda: None)
"""


def test_a_killed_wrapper_takes_down_what_a_program_leaves_that_ends_at_once() -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED_AT_ONCE], stdout=subprocess.PIPE, text=True) as wrapper:
        assert wrapper.stdout
        left = int(wrapper.stdout.readline())
        wrapper.kill()
        wrapper.wait()
        eventually(lambda: has_ended(left))
