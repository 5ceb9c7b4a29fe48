"""The benchmark of gateways runs, and keeps what it measured; nothing is said of how fast it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.proxies import STREAM_MODULE
from tests.e2e.benchmark import read_again, run_benchmark


@pytest.mark.root
@pytest.mark.program("gcc", "serf", "haproxy", "nginx", "wrk")
@pytest.mark.skipif(not Path(STREAM_MODULE).exists(), reason="needs nginx's stream module")
def test_the_benchmark_of_gateways(tmp_path: Path) -> None:
    done = run_benchmark("benchmarks.gateways", tmp_path)
    rows = done.kept["rows"]
    assert len(rows) == 20
    for row in rows:
        assert {"AppSwitch", "HAProxy", "nginx"} <= set(row["numbers"])
        assert all(number > 0 for numbers in row["numbers"].values() for number in numbers)
        assert f"| {row['name']} |" in done.stdout
    assert read_again("benchmarks.gateways", tmp_path) == done.stdout
