"""Copies of the zygote are what a start by exec would be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import zygote
from tests.harness import PATIENCE, Switch, running_switch
from tests.zygote import MODULE, Copy

SELF = """
import json, os, resource, sys
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({
    "environment": dict(os.environ), "directory": os.getcwd(), "umask": status["Umask"],
    "signals": [status[name] for name in ("SigBlk", "SigIgn", "SigCgt")],
    "fds": sorted(os.listdir("/proc/self/fd")), "limit": resource.getrlimit(resource.RLIMIT_NOFILE),
    "session": os.getsid(0) == int(sys.argv[1]), "group": os.getpgid(0) == int(sys.argv[1]), "nice": os.nice(0),
}))
"""
Start = Callable[..., subprocess.Popen[str]]
STARTS: tuple[Start, Start] = (subprocess.Popen, Copy)


def outcomes(command: list[str], **options: Any) -> list[tuple[int, str, str]]:
    """(status, output, errors) of a start by exec, and of a copy."""
    options = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
    } | options
    found = []
    assert Copy.can_be(command, options)
    for start in STARTS:
        with start(command, **options) as process:
            found.append((process.wait(PATIENCE), *process.communicate()))
    return found


def found_in(output: str) -> dict[str, Any]:
    """But for the app's own number."""
    found: dict[str, Any] = json.loads(output)
    del found["environment"]["APPSWITCH_APP"]
    return found


@pytest.mark.parametrize("new_session", [True, False])
def test_what_it_starts_finds_the_same(switch: Switch, tmp_path: Path, new_session: bool) -> None:
    environment = {**switch.environment, "OF_THE_TEST": "a=b \udcff"}
    shell = f"exec {sys.executable} -c '{SELF}' $PPID"
    command = [*MODULE, "spawn", "--no-netns", "sh", "-c", shell]
    by_exec, as_copy = outcomes(command, env=environment, cwd=tmp_path, start_new_session=new_session)
    assert (by_exec[0], as_copy[0]) == (0, 0), by_exec
    assert found_in(as_copy[1]) == found_in(by_exec[1])


@pytest.mark.parametrize(
    "words",
    [
        ["ps"], ["ps", "--json"], ["--version"], ["--help"], ["serve", "--help"], ["no-command"], ["why", "x", "y"],
        ["spawn"], ["spawn", "/no/such/program"], ["spawn", "sh", "-c", "exit 3"], ["spawn", "sh", "-c", "kill -9 $$"],
        ["completion", "bash"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_it_says_and_ends_the_same(switch: Switch, words: list[str]) -> None:
    by_exec, as_copy = outcomes([*MODULE, *words], env=switch.environment)
    assert as_copy == by_exec


def test_output_that_nobody_reads(switch: Switch) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end) as broken:
        by_exec, as_copy = outcomes([*MODULE, "ps"], env=switch.environment, stdout=broken, stderr=subprocess.PIPE)
    assert as_copy == by_exec


def test_a_trap_handler_is_the_tests_own_child(switch: Switch) -> None:
    assert isinstance(switch.server, Copy)
    status = Path(f"/proc/{switch.server.pid}/status").read_text()
    assert f"\nPPid:\t{os.getpid()}\n" in status
    switch.kill_server()
    assert switch.server.returncode == -9


def test_by_exec_it_all_goes_too(no_copies: None) -> None:
    with running_switch() as switch:
        assert not isinstance(switch.server, Copy)
        assert switch.run("echo", "hello").stdout == "hello\n"
        assert switch.rows("services") == []


@pytest.mark.parametrize("more", [{"env": {"LD_PRELOAD": "x.so"}}, {"user": 1}, {"env": {"PYTHONUTF8": "1"}}])
def test_what_is_no_copy(more: dict[str, Any]) -> None:
    assert not Copy.can_be([*MODULE, "ps"], {"env": dict(os.environ), **more})
    assert not Copy.can_be(["true"], {})


def test_a_namespace_that_has_gone() -> None:
    """A copy that can't become what it is to be ends with an error, and the next one is made."""
    with Copy(
        [*MODULE, "--version"], network=1 << 22, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert "FileNotFoundError" in process.communicate()[1]
    assert process.returncode == 1
    with Copy([*MODULE, "--version"], stdout=subprocess.PIPE, text=True) as process:
        assert process.communicate()[0].startswith("appswitch")
    assert zygote.zygote() is zygote.zygote()
