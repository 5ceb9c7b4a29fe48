"""Programs that are traced, as /proc shows them (proc_pid_status(5))."""

from __future__ import annotations

import subprocess
from pathlib import Path


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def descendants(pid: int) -> list[int]:
    found = children(pid)
    return [*found, *(grandchild for child in found for grandchild in descendants(child))]


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def traced(process: subprocess.Popen[str]) -> tuple[int, int]:
    """The pids of the program, and of its tracer."""
    program, tracer = next(
        (pid, int(status_of(pid)["TracerPid"]))
        for pid in descendants(process.pid)
        if status_of(pid)["TracerPid"] != "0"
    )
    return program, tracer
