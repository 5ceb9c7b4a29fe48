"""The simulation of large clusters runs, and draws what it found."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import gossip

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("nodes", "seconds"), gossip.MEASURED)
def test_the_model_is_what_was_measured(nodes: int, seconds: float) -> None:
    assert gossip.spread(nodes) == pytest.approx(seconds, abs=0.03)


def test_what_gets_through() -> None:
    assert gossip.arrives(40) == 1
    assert gossip.arrives(0) == 1
    assert gossip.arrives(160) == pytest.approx(0.25), "SERF.md: of a burst 74 % were lost"


def test_the_simulation(tmp_path: Path) -> None:
    """It asserts itself that all nodes agree in the end."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.scale", "--services", "3000", "--most", "30", "--into", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    for rows in json.loads((tmp_path / "numbers.json").read_text()):
        assert [row["nodes"] for row in rows] == [10, 30]
        assert all(math.isfinite(number) and number >= 0 for row in rows for number in row.values())
        assert all(row["lag p50"] <= row["lag p99"] < 60 for row in rows)
        assert all(row["memory"] > 1000 * row["services"] for row in rows)
    plots = sorted(tmp_path.glob("*.svg"))
    assert len(plots) == 5
    for each in plots:
        drawn = ElementTree.fromstring(each.read_text())
        assert len(drawn.findall(".//{http://www.w3.org/2000/svg}circle")) >= 4
