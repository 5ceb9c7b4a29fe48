"""The models of docs/models, in every order of their steps: none goes wrong, unless a precaution is left out."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

MODELS = Path(__file__).parent.parent / "docs/models"
pytestmark = pytest.mark.program("spin", "gcc")


def errors(model: Path, room: Path, *without: str) -> int:
    def run(*command: str) -> str:
        return subprocess.run(command, cwd=room, capture_output=True, text=True, check=True).stdout

    run("spin", *without, "-a", str(model))
    run("gcc", "-O1", "-DSAFETY", "-DVECTORSZ=2048", "-o", "pan", "pan.c")
    said = run("./pan", "-m100000")
    assert "Search not completed" not in said or "errors: 1" in said, said
    found = re.search(r"errors: (\d+)", said)
    assert found, said
    return int(found[1])


def precautions(model: Path) -> list[str]:
    return sorted(set(re.findall(r"#ifn?def (WITHOUT_\w+)", model.read_text())))


@pytest.mark.parametrize("name", [each.name for each in sorted(MODELS.glob("*.pml"))])
def test_no_order_of_steps_is_wrong(name: str, tmp_path: Path) -> None:
    assert errors(MODELS / name, tmp_path) == 0


@pytest.mark.parametrize(
    ("name", "precaution"), [(each.name, word) for each in sorted(MODELS.glob("*.pml")) for word in precautions(each)]
)
def test_each_precaution_is_needed(name: str, precaution: str, tmp_path: Path) -> None:
    assert errors(MODELS / name, tmp_path, f"-D{precaution}") == 1
