"""The benchmark of traced programs runs, and keeps what it measured; nothing is said of how fast it was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from appswitch.host import tracer

ROOT = Path(__file__).parents[2]


@pytest.mark.program("gcc")
def test_the_benchmark_of_traced_programs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.traced", "--quick", "--rounds", "1"]
    environment = {name: value for name, value in os.environ.items() if name != tracer.VARIABLE}
    done = subprocess.run(
        [*command, "--results", tmp_path],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    (kept,) = tmp_path.iterdir()
    rows = json.loads(kept.read_text())["rows"]
    ways = [way for way in (tracer.PTRACE, tracer.NOTIFY) if f"{way} is left out" not in done.stderr]
    assert ways
    for row in rows:
        assert list(row["numbers"]) == ["AppSwitch", *ways]
        assert all(number > 0 for numbers in row["numbers"].values() for number in numbers)
        assert f"| {row['name']}, {row['unit']} |" in done.stdout
    for way in ways:
        assert f"A trapped call by {way} costs" in done.stdout
    assert "| RET_TRAP, landing |" in done.stdout
    again = subprocess.run([*command, "--read", kept], cwd=ROOT, capture_output=True, text=True, check=True)
    assert again.stdout == done.stdout
