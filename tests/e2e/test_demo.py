"""What `./dev demo` runs does as it says, and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "examples" / "first_light" / "demo.py"


@pytest.mark.program("nginx", "curl")
def test_the_demo(tmp_path_factory: pytest.TempPathFactory) -> None:
    home = tmp_path_factory.mktemp("d")
    done = subprocess.run(
        [sys.executable, DEMO],
        env={**os.environ, "TMPDIR": str(home)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    before, after = done.stdout.split("SIGKILL")
    assert "Hello from web server 1" in before
    assert "Hello from web server 2" in before
    assert after.count("Hello from web server 2") == 8
    assert "Hello from web server 1" not in after
    assert list(home.iterdir()) == []


def test_a_demo_that_fails_says_so(tmp_path: Path) -> None:
    """A home that is too deep for a Unix socket's path: the trap handler can't start."""
    deep = tmp_path / ("deep" * 25)
    deep.mkdir()
    done = subprocess.run(
        [sys.executable, DEMO],
        env={**os.environ, "TMPDIR": str(deep)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "too long" in done.stderr
    assert list(deep.iterdir()) == []
