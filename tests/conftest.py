"""Fixtures, and what the markers mean: a test whose needs are missing is skipped, but in CI it fails."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from appswitch.host import elf, tracer
from tests.harness import Switch, running_switch

# The machine may be busy. (Where CI is set hypothesis does this by itself.)
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
if not os.environ.get("CI"):
    settings.load_profile("patient")

Switch.copies = True  # benchmarks and examples have them by exec


def _is_there(program: str) -> bool:
    if program != "busybox-static":
        return shutil.which(program) is not None
    obstacle = elf.find_obstacle("busybox")  # Debian has it in two packages
    return obstacle is not None and obstacle.reason == "static"


def pytest_runtest_setup(item: pytest.Item) -> None:
    missing = [name for marker in item.iter_markers("program") for name in marker.args if not _is_there(name)]
    if next(item.iter_markers("root"), None) and os.geteuid() != 0:
        missing.append("root")
    if missing:
        text = f"needs {', '.join(missing)}"
        if os.environ.get("CI"):
            pytest.fail(text)
        pytest.skip(text)


@pytest.fixture
def switch() -> Iterator[Switch]:
    """A trap handler."""
    with running_switch() as running:
        yield running


@pytest.fixture
def no_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every `appswitch` of the test is started by exec."""
    monkeypatch.setattr(Switch, "copies", False)


@pytest.fixture(params=[tracer.NOTIFY, tracer.PTRACE])
def way(request: pytest.FixtureRequest, switch: Switch, monkeypatch: pytest.MonkeyPatch) -> str:
    """How static programs and Go's are trapped."""
    monkeypatch.setitem(switch.environment, tracer.VARIABLE, request.param)
    return str(request.param)


@pytest.fixture
def gateway() -> Iterator[Switch]:
    """A trap handler that lets apps out."""
    with running_switch("--gateway") as running:
        yield running
