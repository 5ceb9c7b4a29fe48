"""The small C programs of this directory: compiled once a session, run once a module in each world.

A program is a list of cases (programs/test.h). It runs over the kernel's own TCP, which proves that its checks know
TCP, and under `appswitch spawn`, linked to glibc and to musl. A case passes when all its checks hold and what it says
is the same as over the kernel's TCP.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from attrs import frozen

from tests.harness import PATIENCE, Switch, running_switch

PROGRAMS = Path(__file__).parent / "programs"
VIP = "10.77.0.1"
CFLAGS = ["-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-pthread"]
COMPILERS = {"plain": "gcc", "trapped": "gcc", "musl": "musl-gcc"}
CASE = re.compile(r"^CASE\((\w+)\)", re.MULTILINE)

Build = Callable[..., Path]


@frozen
class Outcome:
    """What one case came to."""

    passed: bool
    output: str

    @property
    def said(self) -> list[str]:
        """What has to be the same with and without the shim."""
        return [line for line in self.output.splitlines() if line.startswith("= ")]


def cases_of(program: str) -> list[str]:
    """The names of a program's cases."""
    return CASE.findall((PROGRAMS / f"{program}.c").read_text())


def every_case(program: str, *worlds: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Runs a test with each case of `program` in each of `worlds`; it takes `outcome`."""
    marked = [
        pytest.param(world, marks=pytest.mark.program(COMPILERS[world]))
        for world in worlds or ("plain", "trapped", "musl")
    ]

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        for name, values in (("case", cases_of(program)), ("world", marked), ("program", [program])):
            test = pytest.mark.parametrize(name, values)(test)
        return test

    return decorate


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Compiles programs/NAME.c: `build(NAME, *FLAGS, compiler=...)` returns the program's path."""
    directory = tmp_path_factory.mktemp("programs")
    directory.chmod(0o755)

    @cache
    def build(name: str, *flags: str, compiler: str = "gcc") -> Path:
        output = directory / "-".join([name, compiler, *(flag.strip("-") for flag in flags)])
        command = [compiler, *CFLAGS, *flags, "-o", str(output), str(PROGRAMS / f"{name}.c")]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
        return output

    return build


@pytest.fixture(scope="module")
def switch() -> Iterator[Switch]:
    """One trap handler for a whole module."""
    with running_switch() as running:
        yield running


@pytest.fixture(scope="module")
def run_program(build: Build, switch: Switch) -> Callable[[str, str], dict[str, Outcome]]:
    """Runs a program's cases: `run_program(NAME, WORLD)` returns their outcomes; each pair is run once."""

    @cache
    def run(name: str, world: str) -> dict[str, Outcome]:
        program = str(build(name, compiler=COMPILERS[world]))
        try:
            if world == "plain":
                output = run_plain(build, program).stdout
            else:
                output = switch.run("--ip", VIP, program, check=False).stdout
        except subprocess.TimeoutExpired as error:
            output = (error.stdout or b"").decode()
        outcomes = {}
        for text in output.split("case ")[1:]:
            case, _, text = text.partition("\n")
            outcomes[case] = Outcome(f"pass {case}\n" in text, text)
        return outcomes

    return run


def run_plain(build: Build, *command: str, check: bool = False) -> subprocess.CompletedProcess[str]:
    """The command without AppSwitch, in a namespace with the same addresses."""
    whole = [str(build("plain")), *command]
    return subprocess.run(
        whole, capture_output=True, text=True, check=check, timeout=PATIENCE, stdin=subprocess.DEVNULL
    )


@pytest.fixture
def outcome(
    program: str, world: str, case: str, run_program: Callable[[str, str], dict[str, Outcome]]
) -> tuple[Outcome, Outcome]:
    """(of the case in this world, of the case over the kernel's own TCP)."""
    none = Outcome(False, "the program ended before this case")
    return run_program(program, world).get(case, none), run_program(program, "plain").get(case, none)


def check(outcome: tuple[Outcome, Outcome]) -> None:
    """The case passed, and said what it says over the kernel's own TCP."""
    here, plain = outcome
    if not here.passed:
        pytest.fail(here.output, pytrace=False)
    assert here.said == plain.said
