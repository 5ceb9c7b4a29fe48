"""The cases of the small C programs (programs/test.h), and in which worlds they run.

A program runs over the kernel's own TCP ("plain"), which proves that its checks know TCP, and under `appswitch spawn`,
linked to glibc ("trapped") and to musl, and under `spawn --tcp`. A case passes when all its checks hold and it says
what it says over the kernel's own TCP.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

PROGRAMS = Path(__file__).parent / "programs"
VIP = "10.77.0.1"
COMPILERS = {"plain": "gcc", "trapped": "gcc", "musl": "musl-gcc", "tcp": "gcc"}
_CASE = re.compile(r"^CASE\((\w+)\)", re.MULTILINE)

Build = Callable[..., Path]
"""build("NAME", *FLAGS, compiler="gcc") compiles programs/NAME.c once a session and returns the program's path."""


@frozen
class Outcome:
    """What one case came to. plain: the same case over the kernel's own TCP."""

    output: str
    plain: str

    def check(self) -> None:
        """Fails unless the case passed, and said what it says over the kernel's own TCP."""
        if not re.search("^pass ", self.output, re.MULTILINE):
            pytest.fail(self.output, pytrace=False)
        assert _said(self.output) == _said(self.plain)


def _said(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("= ")]


def split_cases(output: str) -> dict[str, str]:
    """The output of each case of a program's run."""
    parts = (text.partition("\n") for text in output.split("case ")[1:])
    return {name: text for name, _, text in parts}


def every_case(program: str, among: Collection[str] = COMPILERS) -> Callable[[Any], Any]:
    """Runs a test, which takes `outcome`, for each case of `program` in each world, or those `among` them."""
    names = _CASE.findall((PROGRAMS / f"{program}.c").read_text())
    worlds = [pytest.param(world, marks=pytest.mark.program(COMPILERS[world])) for world in among]

    def decorate(test: Any) -> Any:
        for argument, values in (("case", names), ("world", worlds), ("program", [program])):
            test = pytest.mark.parametrize(argument, values)(test)
        return test

    return decorate


def each_compiler(test: Any) -> Any:
    """Runs a test, which takes `compiler`, for programs of glibc and of musl."""
    compilers = [pytest.param(name, marks=pytest.mark.program(name)) for name in ("gcc", "musl-gcc")]
    return pytest.mark.parametrize("compiler", compilers)(test)
