"""The benchmarks run, on every way that this user has, and keep what they measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.program("gcc")
def test_the_benchmarks(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--tcp", "--rounds", "1", "--results", tmp_path],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
    (kept,) = tmp_path.iterdir()
    result = json.loads(kept.read_text())
    ways = {"AppSwitch", "Unix socket", "TCP loopback", "spawn --tcp"} | (
        {"TCP bridge"} if os.geteuid() == 0 else set()
    )
    for measure in result["measures"]:
        assert set(measure["numbers"]) == ways
        assert all(number > 0 for numbers in measure["numbers"].values() for number in numbers)
        assert measure["name"] in done.stdout
    assert "`spawn true`" in done.stdout
