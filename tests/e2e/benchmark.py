"""Runs a benchmark as a command, for the tests that it works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

ROOT = Path(__file__).parents[2]


@frozen
class Done:
    """What it printed, and what it has kept."""

    stdout: str
    stderr: str
    kept: dict[str, Any]


def run_benchmark(
    module: str, results: Path, *flags: str, within: float = 110, env: Mapping[str, str] = os.environ
) -> Done:
    """One quick round; it keeps the numbers in `results`, which is empty. within: seconds."""
    done = subprocess.run(
        [sys.executable, "-m", module, "--quick", "--rounds", "1", *flags, "--results", results],
        cwd=ROOT,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=within,
    )
    assert done.returncode == 0, done.stderr
    (kept,) = results.iterdir()
    return Done(done.stdout, done.stderr, json.loads(kept.read_text()))


def read_again(module: str, results: Path) -> str:
    """What it prints of what it has kept."""
    (kept,) = results.iterdir()
    command = [sys.executable, "-m", module, "--read", str(kept)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
