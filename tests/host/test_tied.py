"""Programs that end with us."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys

from appswitch.host import tied

STARTER = """
import subprocess, sys
from appswitch.host import tied
print(subprocess.Popen(tied.command("sleep", "1000")).pid, flush=True)
sys.stdin.read()
"""


def test_it_dies_with_the_one_that_started_it() -> None:
    command = [sys.executable, "-c", STARTER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        pidfd = os.pidfd_open(int(starter.stdout.readline()))
        try:
            assert not select.select([pidfd], [], [], 0)[0]
            starter.send_signal(signal.SIGKILL)
            assert select.select([pidfd], [], [], 60)[0]
        finally:
            os.close(pidfd)


def test_one_whose_starter_has_gone_already_doesnt_run() -> None:
    command = tied.command("echo", "ran")
    command[command.index(str(os.getpid()))] = "1"
    assert subprocess.run(command, check=True, capture_output=True).stdout == b""


def test_a_program_that_isnt_there() -> None:
    done = subprocess.run(tied.command("no-such-program"), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "no-such-program: No such file or directory\n")
