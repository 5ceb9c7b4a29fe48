"""The cases of the small C programs (programs/test.h), and in which worlds they run.

A program runs over the kernel's own TCP ("plain"), which proves that its checks know TCP, and under `appswitch spawn`,
linked to glibc ("trapped") and to musl, and under `spawn --tcp`; with its TCP sockets made as Unix sockets where the
shim expects connects ("warm"); and linked statically, to either, when its calls are
trapped by notify or by ptrace ("notify", "notify-musl" and so on); and, with the shim, started by a program that is
trapped by notify, whose filter it inherits ("inherited"). A case passes when all its checks hold and it says
what it says over the kernel's own TCP. The static ones are compared with themselves, plain: libc's functions can't be
hooked in them, and musl's accept4, setsockopt and execvp have ways of their own.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from tests.harness import PATIENCE

PROGRAMS = Path(__file__).parent / "programs"
VIP = "10.77.0.1"
COMPILERS = {
    "plain": "gcc", "trapped": "gcc", "warm": "gcc", "musl": "musl-gcc", "tcp": "gcc",
    "notify": "gcc", "notify-musl": "musl-gcc", "ptrace": "gcc", "ptrace-musl": "musl-gcc", "inherited": "gcc",
}  # fmt: skip
WAYS = ("notify", "ptrace")  # to trap static programs: APPSWITCH_TRACER
STATIC = {world: way for world in COMPILERS for way in WAYS if world.startswith(way)}
# What only data calls tell, which aren't trapped (docs/compatibility.md).
UNTRACED = {
    "data": (
        "recvmsg_gives_no_address", "sends_after_the_other_end_has_closed", "a_shutdown_when_it_is_over",
        "empty_sends_after_the_other_end_has_closed", "sends_after_the_other_end_has_closed_with_data_unread",
        "a_long_send_after_the_other_end_has_closed", "sends_after_the_other_end_has_closed_by_several",
    ),
    "signals": ("a_send_after_the_other_end_has_closed",),
    "syscalls": ("sendmsg_with_an_address",),
}  # fmt: skip
# What only a read tells (docs/compatibility.md).
UNWARMED = ("receiving_on_what_is_not_connected",)
CFLAGS = ["-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-pthread"]
_CASE = re.compile(r"^CASE\((\w+)\)", re.MULTILINE)

Build = Callable[..., Path]
"""build("NAME", *FLAGS, compiler="gcc") compiles programs/NAME.c once a session and returns the program's path."""


def compile_c(source: Path, program: Path, *flags: str, compiler: str = "gcc") -> None:
    """AssertionError: with what the compiler says."""
    command = [compiler, *CFLAGS, *flags, "-o", str(program), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr


@frozen
class Outcome:
    """What one case came to. plain: the same case over the kernel's own TCP."""

    output: str
    plain: str

    def check(self) -> None:
        """Fails unless the case passed, and said what it says over the kernel's own TCP.

        Where it doesn't pass there either, by the C library's own ways, its failure must be the same.
        """
        if not _passed(self.output) and (_passed(self.plain) or self.output != self.plain):
            pytest.fail(self.output, pytrace=False)
        assert _said(self.output) == _said(self.plain)


def _passed(output: str) -> bool:
    return re.search("^pass ", output, re.MULTILINE) is not None


def _said(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("= ")]


def split_cases(output: str) -> dict[str, str]:
    """The output of each case of a program's run."""
    parts = (text.partition("\n") for text in output.split("case ")[1:])
    return {name: text for name, _, text in parts}


def every_case(program: str, among: Collection[str] = COMPILERS) -> Callable[[Any], Any]:
    """Runs a test, which takes `outcome`, for each case of `program` in each world, or those `among` them."""
    names = _CASE.findall((PROGRAMS / f"{program}.c").read_text())
    cases = [pytest.param(world, name, marks=_marks(program, world, name)) for name in names for world in among]

    def decorate(test: Any) -> Any:
        test = pytest.mark.parametrize(("world", "case"), cases)(test)
        return pytest.mark.parametrize("program", [program])(test)

    return decorate


def _marks(program: str, world: str, case: str) -> list[pytest.MarkDecorator]:
    marks = [pytest.mark.program(COMPILERS[world])]
    if world == "warm" and case in UNWARMED:
        marks.append(pytest.mark.xfail(strict=True, reason="reads aren't trapped"))
    if world in STATIC and case in UNTRACED.get(program, ()):
        marks.append(pytest.mark.xfail(strict=True, reason="data calls aren't trapped"))
    return marks


def plain_world(world: str) -> str:
    """A world in which the program is built as in `world`, or as in "plain" unless it is static."""
    return next(each for each in STATIC if COMPILERS[each] == COMPILERS[world]) if world in STATIC else "plain"


def each_compiler(test: Any) -> Any:
    """Runs a test, which takes `compiler`, for programs of glibc and of musl."""
    compilers = [pytest.param(name, marks=pytest.mark.program(name)) for name in ("gcc", "musl-gcc")]
    return pytest.mark.parametrize("compiler", compilers)(test)
