"""The exec family and posix_spawn keep what makes a program ours; the search in PATH."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from appswitch.host.paths import shim_path
from tests.harness import Switch
from tests.shim.cases import VIP, Build, Outcome, each_compiler, every_case

WITH_ENVIRONMENT = ["execve", "execle", "execvpe", "fexecve", "posix_spawn", "posix_spawnp", "vfork", "thread"]
WITHOUT = ["execv", "execvp", "execl", "execlp"]


@pytest.fixture
def foreign(build: Build) -> Path:
    """A library of someone else's to preload."""
    return build("early", "-shared", "-fPIC")


def environment_in(output: str) -> dict[str, str]:
    entries = [line.removeprefix("environment ") for line in output.splitlines() if line.startswith("environment ")]
    assert len({entry.partition("=")[0] for entry in entries}) == len(entries), "a variable is there twice"
    return {key: value for key, _, value in (entry.partition("=") for entry in entries)}


def arguments_in(output: str) -> list[str]:
    return [line.removeprefix("argument ") for line in output.splitlines() if line.startswith("argument ")]


def run_exec(
    switch: Switch, build: Build, how: str, kind: str, compiler: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    probe = build("probe", compiler=compiler)
    return switch.run(
        "--ip", VIP, str(build("exec", compiler=compiler)), how, kind, str(probe), "one", "two words",
        env={**switch.environment, **environment},
    )  # fmt: skip


@each_compiler
@pytest.mark.parametrize("kind", ["clean", "none", "same"])
@pytest.mark.parametrize("how", [*WITH_ENVIRONMENT, *WITHOUT])
def test_a_started_program_is_trapped(switch: Switch, build: Build, how: str, kind: str, compiler: str) -> None:
    done = run_exec(switch, build, how, kind, compiler)
    environment = environment_in(done.stdout)
    assert environment["LD_PRELOAD"] == str(shim_path())
    assert environment["APPSWITCH_SOCKET"] == str(switch.trap)
    assert ("KEPT" in environment) == (kind == "clean")
    assert arguments_in(done.stdout) == [str(build("probe", compiler=compiler)), "one", "two words"]
    assert done.stdout.endswith("\ntrapped\n")


@pytest.mark.parametrize("how", ["execve-null"])
def test_no_environment_at_all(switch: Switch, build: Build, how: str) -> None:
    done = run_exec(switch, build, how, "same", "gcc")
    assert environment_in(done.stdout).keys() >= {"LD_PRELOAD", "APPSWITCH_SOCKET"}
    assert done.stdout.endswith("\ntrapped\n")


@pytest.mark.parametrize("how", ["execve-syscall", "execveat"])
def test_by_syscall(switch: Switch, build: Build, how: str) -> None:
    done = run_exec(switch, build, how, "clean", "gcc")
    assert done.stdout.endswith("\ntrapped\n")


@pytest.mark.parametrize("how", [*WITH_ENVIRONMENT, *WITHOUT])
def test_a_foreign_preload_stays_beside_ours(switch: Switch, build: Build, foreign: Path, how: str) -> None:
    done = run_exec(switch, build, how, "foreign", "gcc", FOREIGN=str(foreign))
    assert environment_in(done.stdout)["LD_PRELOAD"].split(":") == [str(shim_path()), str(foreign)]
    assert "called early\n" in done.stdout
    assert done.stdout.endswith("\ntrapped\n")


def test_a_foreign_preload_that_names_ours_is_left_as_it_is(switch: Switch, build: Build, foreign: Path) -> None:
    both = f"{foreign}:{shim_path()}"
    done = run_exec(switch, build, "execve", "foreign", "gcc", FOREIGN=both)
    assert environment_in(done.stdout)["LD_PRELOAD"] == both
    assert done.stdout.endswith("\ntrapped\n")


def test_a_foreign_preload_from_outside(switch: Switch, build: Build, foreign: Path) -> None:
    done = switch.run(
        "--ip", VIP, str(build("probe")), env={**switch.environment, "LD_PRELOAD": str(foreign)}
    )  # fmt: skip
    assert environment_in(done.stdout)["LD_PRELOAD"].split(":") == [str(shim_path()), str(foreign)]
    assert "called early\n" in done.stdout


def test_another_trap_socket_stays_the_programs_choice(switch: Switch, build: Build) -> None:
    """What the program sets itself is not overwritten."""
    shell = f"APPSWITCH_SOCKET=/nothing/there exec {build('probe')}"
    done = switch.run("--ip", VIP, "sh", "-c", shell, check=False)
    assert environment_in(done.stdout)["APPSWITCH_SOCKET"] == "/nothing/there"
    assert "no trap handler answers at /nothing/there" in done.stderr


def test_through_programs_that_clear_the_environment(switch: Switch, build: Build) -> None:
    probe = str(build("probe"))
    commands = (
        ["env", "-i", probe],
        ["env", "-i", "sh", "-c", probe],
        ["sh", "-c", f"unset LD_PRELOAD APPSWITCH_SOCKET; exec {probe}"],
        ["python3", "-c", f"import subprocess; subprocess.run(['{probe}'], env={{}}, check=True)"],
        ["python3", "-c", f"import os; os.posix_spawn('{probe}', ['{probe}'], {{}}); os.wait()"],
        ["python3", "-c", f"import os; os.system('env -i {probe}')"],
        ["setsid", "-w", "env", "-i", "nice", probe],
    )
    for command in commands:
        assert switch.run("--ip", VIP, *command).stdout.endswith("\ntrapped\n"), command


def test_many_variables(switch: Switch, build: Build) -> None:
    """More than the shim reads at once; the ones that matter come last."""
    many = {f"VARIABLE_{i}": "x" * 100 for i in range(2000)} | {"LARGE": "y" * 100_000}
    environment = {**many, **switch.environment}
    done = switch.run("--ip", VIP, str(build("probe")), env=environment)
    assert environment_in(done.stdout)["LARGE"] == "y" * 100_000
    assert done.stdout.endswith("\ntrapped\n")


@every_case("search")
def test_search(outcome: Outcome) -> None:
    outcome.check()
