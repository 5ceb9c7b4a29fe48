"""The benchmark of traced programs runs, and keeps what it measured; nothing is said of how fast it was."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from appswitch.host import tracer
from tests.e2e.benchmark import read_again, run_benchmark


@pytest.mark.program("gcc")
def test_the_benchmark_of_traced_programs(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != tracer.VARIABLE}
    done = run_benchmark("benchmarks.traced", tmp_path, env=environment)
    rows = done.kept["rows"]
    ways = [way for way in (tracer.PTRACE, tracer.NOTIFY) if f"{way} is left out" not in done.stderr]
    assert ways
    for row in rows:
        assert list(row["numbers"]) == ["AppSwitch", *ways]
        assert all(number > 0 for numbers in row["numbers"].values() for number in numbers)
        assert f"| {row['name']}, {row['unit']} |" in done.stdout
    for way in ways:
        assert f"A trapped call by {way} costs" in done.stdout
    assert "| RET_TRAP, landing |" in done.stdout
    assert read_again("benchmarks.traced", tmp_path) == done.stdout
