"""The small C programs of this directory: compiled once a session, run once a module in each world (cases.py)."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest

from tests.harness import Switch, running_switch
from tests.shim.cases import COMPILERS, PROGRAMS, STATIC, VIP, Build, Outcome, compile_c, plain_world, split_cases

RunProgram = Callable[[str, str, bool], dict[str, str]]


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Compiles a program: see Build."""
    directory = tmp_path_factory.mktemp("programs")
    directory.chmod(0o755)

    @cache
    def build(name: str, *flags: str, compiler: str = "gcc") -> Path:
        output = directory / "-".join([name, compiler, *(flag.strip("-").replace("=", "") for flag in flags)])
        compile_c(PROGRAMS / f"{name}.c", output, *flags, compiler=compiler)
        return output

    return build


@pytest.fixture(scope="module")
def switch() -> Iterator[Switch]:
    """One trap handler for a whole module."""
    with running_switch() as running:
        yield running


@pytest.fixture(scope="module")
def run_program(build: Build, switch: Switch) -> RunProgram:
    """Gives the output of each case of a program in a world, or, built as there, plain; each is run once."""

    def command(name: str, world: str, plain: bool) -> list[str]:
        slow = ["-DSECONDS=60"] if world == "tcp" else []  # the trap handler is asked for each connection
        warm = ["-DWARM=1"] if world == "warm" else []
        static = ["-static"] if world in STATIC else []
        program = str(build(name, *slow, *warm, *static, compiler=COMPILERS[world]))
        if plain:  # without AppSwitch, in a namespace with the same addresses
            return [str(build("plain")), program]
        flags = ["--tcp"] if world == "tcp" else []
        starter = [str(build("exec", "-static")), "execve", "same"] if world == "inherited" else []
        return [*switch.appswitch, "spawn", *flags, "--ip", VIP, *starter, program]

    @cache
    def run(name: str, world: str, plain: bool) -> dict[str, str]:
        environment = {**switch.environment, "APPSWITCH_TRACER": STATIC.get(world, "notify")}
        try:
            done = subprocess.run(
                command(name, world, plain), env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, timeout=100, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            return split_cases((error.stdout or b"").decode())
        return split_cases(done.stdout.decode())

    return run


@pytest.fixture
def outcome(program: str, world: str, case: str, run_program: RunProgram) -> Outcome:
    """Of one case of a program in one world."""
    none = "the program ended before this case"
    plain = run_program(program, plain_world(world), True)
    return Outcome(run_program(program, world, world == "plain").get(case, none), plain.get(case, none))


@pytest.fixture
def waiting(switch: Switch, build: Build) -> Iterator[subprocess.Popen[str]]:
    """A static program that has said where it serves, and waits."""
    process = switch.spawn(
        "--ip",
        VIP,
        str(build("dialler", "-static")),
        VIP,
        "9",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "errno 111\n"
    yield process
    with suppress(ValueError):  # the test has done so
        process.communicate()
