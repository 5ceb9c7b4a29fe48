"""The page's modules without a browser: `*.test.mjs` here, run by Node's test runner."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TESTS = sorted(HERE.glob("*.test.mjs"))


@pytest.mark.program("node")
@pytest.mark.parametrize("test", TESTS, ids=[path.name.removesuffix(".test.mjs") for path in TESTS])
def test_modules(test: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "NODE_OPTIONS"}
    command = ["node", "--test", test.name]
    done = subprocess.run(command, cwd=HERE, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\n# pass 0\n" not in done.stdout


def test_there_are_tests() -> None:
    assert TESTS
