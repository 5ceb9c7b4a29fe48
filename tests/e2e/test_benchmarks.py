"""The figures are taken, by every way that this user has; nothing is said of how fast it was."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks import ways
from benchmarks.__main__ import prepare
from benchmarks.figure import Taken
from benchmarks.figures import connects, crowds, memory, processor, start_up, throughput
from tests.e2e.benchmark import read_again, run_benchmark


@pytest.mark.program("gcc", "haproxy")
def test_the_command_takes_a_figure_by_every_way(tmp_path: Path) -> None:
    done = run_benchmark("benchmarks", tmp_path, "--only", "latency", within=90)
    (figure,) = done.kept["figures"].values()
    assert not [each for each in figure["left_out"] if "not installed" not in each and os.geteuid() == 0]
    expected = {ways.APPSWITCH, ways.UNIX, ways.LOOPBACK}
    if os.geteuid() == 0:
        expected |= {ways.BRIDGE, ways.HAPROXY, ways.NGINX}
    for numbers in figure["rows"].values():
        assert set(numbers) - {ways.WRAPPER} == expected
        assert all(number > 0 for taken in numbers.values() for number in taken)
    assert "| 2. Request and response | <= 1.05x the plain Unix socket |" in done.stdout
    assert read_again("benchmarks", tmp_path) == done.stdout


@pytest.mark.program("gcc", "iperf", "nginx", "wrk", "redis-server", "redis-benchmark", "strace")
def test_the_other_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The least of each, by AppSwitch alone and, where that can be, the Unix socket."""
    small = {"4 KiB": 4096}
    monkeypatch.setattr(throughput, "SIZES", small)
    monkeypatch.setattr(processor, "MOVED", {4096: processor.MOVED[4096]})
    monkeypatch.setattr(memory, "SIZES", (10, 20))
    figures = [module.FIGURE for module in (throughput, connects, processor, start_up, memory, crowds)]
    with prepare(tmp_path, 0.002, figures, peers=False) as stage:
        stage.rounds = 1
        taken: dict[str, Taken] = {each.name: each.take(stage) for each in figures}
        assert not [each for each in stage.left_out if "here" not in each]
    assert taken["throughput"].keys() == {throughput.REAL["4 KiB"], throughput.LOAD["4 KiB"]}
    assert taken["processor"].keys() == {processor.MOVED[4096], processor.CONNECTS, processor.CALLS}
    for each in figures[1:2] + figures[3:]:
        assert taken[each.name].keys() == {row.name for row in each.rows}
    assert taken["processor"][processor.CALLS][ways.UNIX] == pytest.approx(
        [4.0], abs=0.1
    )  # socket, connect, read, close
    assert taken["crowds"][crowds.ANSWER] == {way: [20.0] for way in (ways.APPSWITCH, ways.UNIX, ways.LOOPBACK)}
    assert taken["crowds"][crowds.APPS_ANSWER] == {ways.APPSWITCH: [2.0]}
