"""The benchmarks between hosts run, and keep what they measured; nothing is said of how fast it was."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.root
@pytest.mark.program("gcc", "serf", "haproxy")
def test_the_benchmarks_between_hosts(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.hosts", "--quick", "--rounds", "1", "--nodes", "3"]
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
    result = json.loads(kept.read_text())
    for row in result["traffic"]:
        ways = {"AppSwitch", "plain"} | (
            set() if "datagrams" in row["name"] or "UDP" in row["name"] else {"HAProxy at each end"}
        )
        assert set(row["numbers"]) == ways
        assert all(number > 0 for numbers in row["numbers"].values() for number in numbers)
        assert f"| {row['name']}, {row['unit']} |" in done.stdout
    (size,) = result["cluster"]
    assert size["nodes"] == 3
    assert len(size["told"]) == len(size["reached"]["AppSwitch"]) == 4
    assert sum(size["rest"]) > 0
    assert [each["failed"] for each in result["failover"]] == [0, 0]
    again = subprocess.run([*command, "--read", kept], cwd=ROOT, capture_output=True, text=True, check=True)
    assert again.stdout == done.stdout
