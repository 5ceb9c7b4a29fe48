"""What a supervisor asks of `spawn`: programs that end with it, as wholes; and further programs inside an app."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys

import pytest

from tests.harness import Switch, eventually, has_ended, stop

BOTH = pytest.mark.parametrize("netns", [[], ["--no-netns"]], ids=["netns", "no netns"])
SUPERVISOR = """
import os, subprocess, sys
command = [sys.executable, "-m", "appswitch", "spawn", "--supervised", str(os.getpid()), *sys.argv[1:]]
sys.exit(subprocess.run(command).returncode)
"""
TREE = "setsid sh -c 'trap \"\" TERM; echo $$; exec sleep 1000' & sleep 1000 & echo $!; read line; exit 7"


def supervised(switch: Switch, *arguments: str) -> subprocess.Popen[str]:
    """A parent that spawns so."""
    command = [sys.executable, "-c", SUPERVISOR, *arguments]
    return subprocess.Popen(command, env=switch.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def pids(process: subprocess.Popen[str], count: int) -> list[int]:
    assert process.stdout
    return [int(process.stdout.readline()) for _ in range(count)]


@BOTH
def test_a_killed_supervisor_takes_all_down(switch: Switch, netns: list[str]) -> None:
    parent = supervised(switch, *netns, "--", "sh", "-c", TREE)
    tree = pids(parent, 2)
    parent.kill()
    for each in tree:
        eventually(lambda pid=each: has_ended(pid))
    parent.communicate()
    eventually(lambda: switch.rows("ps") == [])


@BOTH
def test_what_a_program_leaves_behind_ends_with_it(switch: Switch, netns: list[str]) -> None:
    """All of it has ended when spawn does."""
    parent = supervised(switch, *netns, "--", "sh", "-c", TREE)
    tree = pids(parent, 2)
    parent.communicate("end\n")
    assert parent.returncode == 7
    assert [pid for pid in tree if not has_ended(pid)] == []


def test_a_supervisor_that_has_gone(switch: Switch) -> None:
    done = switch.run("--supervised", "1", "echo", "ran", check=False)
    assert (done.returncode, done.stdout) == (125, "")


LISTEN = "import socket; s = socket.create_server(('127.0.0.1', 99)); print(1, flush=True); s.accept()[0].send(b'hi')"
ASK = "import socket; print(socket.create_connection(('127.0.0.1', 99)).recv(9).decode())"


@pytest.mark.parametrize("user", [[], pytest.param(["--user", "nobody"], marks=pytest.mark.root)], ids=["", "nobody"])
def test_a_program_inside_an_app(switch: Switch, user: list[str]) -> None:
    """It has the app's identity: what the app serves for itself alone is there. No new app is made."""
    python = "/usr/bin/python3"
    app = switch.spawn("--ip", "10.9.9.9", python, "-c", LISTEN, stdout=subprocess.PIPE)
    assert app.stdout
    app.stdout.readline()
    done = switch.run("--inside", str(app.pid), *user, "--", "sh", "-c", "id -un; exit 3", check=False)
    assert done.returncode == 3
    assert done.stdout == (f"{user[-1] if user else pwd.getpwuid(os.geteuid()).pw_name}\n")
    done = switch.run("--inside", str(app.pid), *user, "--", python, "-c", ASK)
    assert done.stdout == "hi\n"


def test_inside_what_isn_t_there(switch: Switch) -> None:
    process = subprocess.Popen(["true"], text=True)
    stop(process)
    done = switch.run("--inside", str(process.pid), "true", check=False)
    assert done.returncode == 125
    assert "can't be joined" in done.stderr
