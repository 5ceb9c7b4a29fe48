"""The man pages: of each command, without a fault that man and mandoc know, saying what --help says."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from appswitch.cli.manual import ENVIRONMENT, INTERNAL, pages, write
from tests.zygote import MODULE

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write(tmp_path_factory.mktemp("man"))


def test_a_page_a_command(files: list[Path]) -> None:
    names = {each.stem for each in files}
    assert {"appswitch", "appswitch-spawn", "appswitch-compose-up", "appswitch-external-list"} <= names
    assert len(names) == len(files) == len(list(pages()))


@pytest.mark.program("mandoc")
def test_mandoc_finds_no_fault(files: list[Path]) -> None:
    done = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", *files], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.program("mandoc")
def test_what_it_shows(files: list[Path]) -> None:
    spawn = next(each for each in files if each.stem == "appswitch-spawn")
    shown = subprocess.run(["mandoc", "-T", "ascii", spawn], capture_output=True, text=True, check=True).stdout
    text = " ".join(re.sub(".\b", "", shown).split())
    assert "NAME appswitch-spawn - run a program with an identity of its own SYNOPSIS" in text
    assert "appswitch spawn [OPTIONS] [--] CMD ARG... DESCRIPTION" in text
    assert "--ip ADDR The virtual IP, v4 or v6." in text
    assert "125 AppSwitch failed" in text
    assert "APPSWITCH_SOCKET The trap handler's socket, as --socket is" in text


def test_the_date_can_be_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that packages come out the same (reproducible-builds.org)."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    assert '"2001-09-09"' in write(tmp_path)[0].read_text().splitlines()[0]


def test_every_option_of_help_is_there() -> None:
    for page in pages():
        shown = subprocess.run([*MODULE, *page.words[1:], "--help"], capture_output=True, text=True, check=True)
        names = re.findall(r"^  (?:-\w, )?(--?[\w-]+)", shown.stdout.partition("\nOptions:")[2], flags=re.MULTILINE)
        assert set(names) - {"--help"} == {each.names[-1] for each in page.flags}, page.words


def test_every_variable_is_told_of() -> None:
    """Those that the sources name, in Python and in C."""
    found: set[str] = set()
    for file in [*(ROOT / "appswitch").rglob("*.py"), ROOT / "shim" / "settings.c"]:
        found |= set(re.findall(r"\b(?<!ifndef )(_?APPSWITCH_[A-Z]+)(?!_H)\b", file.read_text()))
    assert found == ENVIRONMENT.keys() | INTERNAL.keys()
