"""Which programs are traced, and how."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from appswitch.errors import AppSwitchError
from appswitch.host import seccomp, tracer
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


@pytest.fixture
def notifies(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the kernel tells threads of their calls."""
    monkeypatch.setattr(seccomp, "can_trap", lambda: request.param)
    return bool(request.param)


@pytest.mark.parametrize(
    ("wanted", "notifies", "why"),
    [("notify", False, "SECCOMP_RET_TRAP"), ("magic", True, "no such way")],
    indirect=["notifies"],
)
@pytest.mark.usefixtures("notifies")
def test_a_way_that_there_isn_t(monkeypatch: pytest.MonkeyPatch, wanted: str, why: str) -> None:
    monkeypatch.setenv("APPSWITCH_TRACER", wanted)
    with pytest.raises(AppSwitchError, match=f"APPSWITCH_TRACER={wanted}: .*{why}"):
        tracer.way()


@pytest.mark.parametrize(
    ("wanted", "notifies", "way", "why"),
    [
        ("", True, "notify", "tells threads"),
        ("", False, "ptrace", "no other way"),
        ("ptrace", True, "ptrace", "as APPSWITCH_TRACER says"),
        ("notify", True, "notify", "as APPSWITCH_TRACER says"),
    ],
    indirect=["notifies"],
)
@pytest.mark.usefixtures("notifies")
def test_the_way_and_why(monkeypatch: pytest.MonkeyPatch, wanted: str, way: str, why: str) -> None:
    monkeypatch.setenv("APPSWITCH_TRACER", wanted)
    assert tracer.way() == way
    assert why in tracer.reason()


def test_what_this_kernel_can() -> None:
    """Linux 5.14 is needed anyway."""
    assert seccomp.can_trap()
