"""How lines of programs look."""

from __future__ import annotations

import io
import sys

import pytest

from appswitch.cli.log_lines import Printer
from appswitch.compose.logbook import Line


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def line(text: str, service: str = "web", note: bool = False) -> Line:
    return Line(0.0, service, f"{service}-1" if service else "", text, note)


def test_plain() -> None:
    printer = Printer(["web-1", "cache-1"])
    assert printer.text(line("hello")) == "web-1   | hello"
    assert printer.text(line("\x1b[31mred\x1b[0m\tand \x1b]0;title\x07\r")) == "web-1   | red\tand  ]0;title "
    assert printer.text(line("exited with status 1", note=True)) == "web-1 exited with status 1"
    assert printer.text(line("stopping all", "", note=True)) == "appswitch: stopping all"


def test_times() -> None:
    assert "1970-01-01T" in Printer(["web-1"], timestamps=True).text(line("x"))


@pytest.mark.parametrize("quiet", ["--no-color", "NO_COLOR", ""])
def test_colours(monkeypatch: pytest.MonkeyPatch, quiet: str) -> None:
    """A service keeps its own; what a program colours stays so, and ends with its line."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("NO_COLOR", "1" if quiet == "NO_COLOR" else "")
    printer = Printer(["web-1", "db-1"], no_color=quiet == "--no-color")
    printer.show([line("a"), line("b", "db"), line("\x1b[31mred\x1b[2J")])
    assert terminal.getvalue() == (
        "web-1 | a\ndb-1  | b\nweb-1 | red [2J\n"
        if quiet
        else "\x1b[36mweb-1 |\x1b[0m a\n\x1b[33mdb-1  |\x1b[0m b\n\x1b[36mweb-1 |\x1b[0m \x1b[31mred [2J\x1b[0m\n"
    )
