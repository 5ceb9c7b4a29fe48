"""Programs that are traced, as /proc shows them (proc_pid_status(5))."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def descendants(pid: int) -> list[int]:
    found = children(pid)
    return [*found, *(grandchild for child in found for grandchild in descendants(child))]


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def program_of(process: subprocess.Popen[str]) -> int:
    """The pid of the program that `spawn` has started."""
    keeper = children(process.pid)[0]
    return children(keeper)[0]


def tracer_of(process: subprocess.Popen[str]) -> int:
    """The pid of its tracer; 0: it has none."""
    return int(status_of(program_of(process))["TracerPid"])


def only(way: str) -> pytest.MarkDecorator:
    """For a test of one way to trap programs."""
    return pytest.mark.parametrize("way", [way], indirect=True)
