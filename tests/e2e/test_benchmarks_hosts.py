"""The benchmarks between hosts run, and keep what they measured; nothing is said of how fast it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.benchmark import read_again, run_benchmark


@pytest.mark.root
@pytest.mark.program("gcc", "serf", "haproxy")
def test_the_benchmarks_between_hosts(tmp_path: Path) -> None:
    done = run_benchmark("benchmarks.hosts", tmp_path, "--nodes", "3")
    result = done.kept
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
    assert read_again("benchmarks.hosts", tmp_path) == done.stdout
