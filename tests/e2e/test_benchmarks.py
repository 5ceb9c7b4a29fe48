"""The benchmarks run, on every way that this user has, and keep what they measured."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.e2e.benchmark import run_benchmark


@pytest.mark.program("gcc")
def test_the_benchmarks(tmp_path: Path) -> None:
    done = run_benchmark("benchmarks", tmp_path, "--tcp", within=90)
    result = done.kept
    ways = {"AppSwitch", "Unix socket", "TCP loopback", "spawn --tcp"} | (
        {"TCP bridge"} if os.geteuid() == 0 else set()
    )
    for measure in result["measures"]:
        assert set(measure["numbers"]) == ways
        assert all(number > 0 for numbers in measure["numbers"].values() for number in numbers)
        assert measure["name"] in done.stdout
    assert "`spawn true`" in done.stdout
