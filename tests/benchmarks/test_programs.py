"""Servers at the ends of a way."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from benchmarks import programs
from benchmarks.figure import Stage
from benchmarks.programs import started
from benchmarks.ways import UNIX, Bench, Ends
from tests.harness import eventually

LISTEN = """
import os, socket, sys
with socket.socket(socket.AF_UNIX) as listener:
    with open(sys.argv[2], "w") as pid:
        pid.write(str(os.getpid()))
    listener.bind(sys.argv[1])
    listener.listen()
    listener.accept()
"""


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(Bench(tmp_path, tmp_path / "load", {}), scale=1.0)


def test_a_server_runs_until_the_end_of_the_stack(stage: Stage, tmp_path: Path) -> None:
    socket, pid = tmp_path / "socket", tmp_path / "pid"
    with ExitStack() as stack:
        command = [sys.executable, "-c", LISTEN, str(socket), str(pid)]
        assert started(stage, stack, Ends(UNIX, kind="unix"), command, socket)
        process = Path("/proc") / pid.read_text()
        assert process.exists()
    assert not process.exists()
    assert stage.left_out == []


def test_a_way_whose_server_does_not_start_is_left_out(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "eventually", partial(eventually, within=0.1))
    with ExitStack() as stack:
        command = ["sh", "-c", "echo no room >&2"]
        assert not started(stage, stack, Ends(UNIX, kind="unix"), command, tmp_path / "socket")
    assert stage.left_out == [f"{UNIX}: sh didn't start: no room\n"]
