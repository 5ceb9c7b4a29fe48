"""The benchmark of gateways runs, and keeps what it measured; nothing is said of how fast it was."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.gateways import STREAM_MODULE

ROOT = Path(__file__).parents[2]


@pytest.mark.root
@pytest.mark.program("gcc", "serf", "haproxy", "nginx", "wrk")
@pytest.mark.skipif(not Path(STREAM_MODULE).exists(), reason="needs nginx's stream module")
def test_the_benchmark_of_gateways(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gateways", "--quick", "--rounds", "1"]
    done = subprocess.run(
        [*command, "--results", tmp_path],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    (kept,) = tmp_path.iterdir()
    rows = json.loads(kept.read_text())["rows"]
    assert len(rows) == 20
    for row in rows:
        assert {"AppSwitch", "HAProxy", "nginx"} <= set(row["numbers"])
        assert all(number > 0 for numbers in row["numbers"].values() for number in numbers)
        assert f"| {row['name']} |" in done.stdout
    again = subprocess.run([*command, "--read", kept], cwd=ROOT, capture_output=True, text=True, check=True)
    assert again.stdout == done.stdout
