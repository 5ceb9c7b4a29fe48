"""Setuid programs, which get no LD_PRELOAD; root's own here, so that they stay what they are."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator

import pytest

from tests.harness import Switch, running_switch
from tests.shim.cases import Build

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("way")]
NOBODY = 65534
SERVER = "10.77.6.1"


@pytest.fixture(scope="module")
def switch() -> Iterator[Switch]:
    """An ordinary user's trap handler."""
    with running_switch(user=NOBODY) as running:
        yield running


@pytest.fixture(scope="module", autouse=True)
def server(switch: Switch, build: Build) -> None:
    herald = shutil.copy(build("herald"), switch.directory)  # where an ordinary user finds it
    switch.spawn("--ip", SERVER, "--name", "herald", str(herald), SERVER, "80")
    switch.wait_for("herald:80")


@pytest.fixture(scope="module")
def setuid(switch: Switch, build: Build) -> str:
    """A static program that becomes root for whoever starts it."""
    path = switch.directory / "dialler"
    shutil.copy(build("dialler", "-static"), path)
    os.chown(path, 0, 0)
    path.chmod(0o4755)
    return str(path)


def test_by_spawn(switch: Switch, setuid: str) -> None:
    """It isn't traced: it would lose what the file gives it. It runs, without a network, and that is said."""
    done = switch.run(setuid, SERVER, "80")
    assert re.fullmatch(r"errno \d+\n", done.stdout), done
    assert "is setuid or setgid" in done.stderr
    assert "it has no network" in done.stderr


@pytest.mark.program("busybox-static")
@pytest.mark.parametrize("shell", [["sh"], ["busybox", "sh"]], ids=["dynamic", "traced"])
def test_by_a_program(switch: Switch, setuid: str, shell: list[str]) -> None:
    """Started inside it is traced, as what it starts from is."""
    done = switch.run("--ip", "10.77.6.2", *shell, "-c", f"{setuid} {SERVER} 80")
    assert re.fullmatch(rf"10.77.6.2:\d+ to {SERVER}:80\n", done.stdout), done
