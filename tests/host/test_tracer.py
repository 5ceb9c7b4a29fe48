"""Which programs are traced, and how."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from appswitch.errors import AppSwitchError
from appswitch.host import tracer
from appswitch.host.elf import Obstacle


@pytest.mark.parametrize(
    ("reason", "reached"), [("static", True), ("go", True), ("secure", False), ("not-found", False)]
)
def test_what_it_reaches(reason: str, reached: bool) -> None:
    assert tracer.reaches(Obstacle(reason, "", "")) == reached


def test_nothing_is_reached_without_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tracer, "tracer_path", lambda: tmp_path / "none")
    assert not tracer.reaches(Obstacle("static", "", ""))


def test_the_command_has_the_programs_path() -> None:
    program, path, *words = tracer.traced(["sh", "-c", "true"])
    assert Path(program).exists()
    assert path == "/bin/sh" or path.endswith("/sh")
    assert words == ["sh", "-c", "true"]
    assert tracer.traced([sys.executable])[1:] == [sys.executable, sys.executable]


@pytest.mark.parametrize(("wanted", "why"), [("notify", "isn't there yet"), ("magic", "no such way")])
def test_a_way_that_there_isn_t(monkeypatch: pytest.MonkeyPatch, wanted: str, why: str) -> None:
    monkeypatch.setenv("APPSWITCH_TRACER", wanted)
    with pytest.raises(AppSwitchError, match=f"APPSWITCH_TRACER={wanted}: .*{why}"):
        tracer.way()


@pytest.mark.parametrize("wanted", ["", "ptrace"])
def test_the_way_that_there_is(monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    monkeypatch.setenv("APPSWITCH_TRACER", wanted)
    assert tracer.way() == "ptrace"
