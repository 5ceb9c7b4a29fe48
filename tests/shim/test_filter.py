"""A seccomp filter: a program's own, or around it all."""

from __future__ import annotations

import re

import pytest

from tests.harness import Switch
from tests.shim.cases import VIP, Build, Outcome, every_case

SERVER = "10.77.2.9"
TRAPPED = rf"{VIP}:\d+ to {SERVER}:80\n"


@every_case("filter")
def test_filter(outcome: Outcome) -> None:
    outcome.check()


@pytest.fixture(scope="module")
def server(switch: Switch, build: Build) -> None:
    """A dynamic program that answers at SERVER:80."""
    switch.spawn("--ip", SERVER, "--name", "herald", str(build("herald")), SERVER, "80")
    switch.wait_for("herald:80")


@pytest.mark.usefixtures("server", "way")
@pytest.mark.parametrize("kind", ["", "-static"], ids=["dynamic", "static"])
def test_inside_a_program_that_has_one(switch: Switch, build: Build, kind: str) -> None:
    """A program with the shim, or one that is traced, that starts another."""
    filtered = str(build("filtered", *filter(None, [kind])))
    done = switch.run("--ip", VIP, filtered, "reboot", str(build("dialler", "-static")), SERVER, "80")
    assert re.fullmatch(TRAPPED, done.stdout), done


@pytest.mark.usefixtures("server", "way")
def test_around_spawn(switch: Switch, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switch, "prefix", [str(build("filtered")), "reboot"])
    done = switch.run("--ip", VIP, str(build("dialler", "-static")), SERVER, "80")
    assert re.fullmatch(TRAPPED, done.stdout), done


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("call", ["ptrace", "seccomp"])
def test_one_that_forbids_tracing(switch: Switch, build: Build, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said, and to the doctor, too; dynamic programs don't mind."""
    monkeypatch.setattr(switch, "prefix", [str(build("filtered")), call])
    done = switch.run("--ip", VIP, str(build("dialler", "-static")), SERVER, "80")
    assert re.fullmatch(r"errno \d+\n", done.stdout), done
    assert "this program can't be traced, it has no network" in done.stderr
    assert "hint: " in done.stderr
    (found,) = [row for row in switch.rows("doctor") if row["check"] == "tracer"]
    assert (found["level"], "is forbidden here" in found["message"]) == ("warning", True)
    done = switch.run("--ip", VIP, str(build("dialler")), SERVER, "80")
    assert re.fullmatch(TRAPPED, done.stdout), done
