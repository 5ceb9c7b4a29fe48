"""The tracer: exec to and from it, the end of either, job control, and that data calls don't stop."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.harness import PATIENCE, Switch, eventually, has_ended
from tests.shim.cases import VIP, Build

WITH_ENVIRONMENT = ["execve", "execle", "execvpe", "execveat", "execve-syscall", "posix_spawn", "posix_spawnp", "vfork"]
SERVER = "10.77.2.1"


@pytest.fixture(scope="module")
def server(switch: Switch, build: Build) -> None:
    """A dynamic program that answers at SERVER:80."""
    switch.spawn("--ip", SERVER, "--name", "answer", str(build("answer")), SERVER, "80")
    switch.wait_for("answer:80")


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("kinds", [("", "-static"), ("-static", ""), ("-static", "-static")], ids=str)
@pytest.mark.parametrize("how", WITH_ENVIRONMENT)
def test_exec(switch: Switch, build: Build, how: str, kinds: tuple[str, str]) -> None:
    """Only what is trapped reaches another app."""
    starter, dialler = (
        build(name, *filter(None, [kind])) for name, kind in zip(("exec", "dialler"), kinds, strict=True)
    )
    done = switch.run("--ip", VIP, str(starter), how, "clean", str(dialler), SERVER, "80")
    assert re.fullmatch(rf"{VIP}:\d+ to {SERVER}:80\n", done.stdout), done


@pytest.mark.usefixtures("server")
def test_a_script_for_a_static_program(switch: Switch, build: Build, tmp_path: Path) -> None:
    """Its interpreter gets SERVER, as the script's argument, and the script's name."""
    script = tmp_path / "80"
    script.write_text(f"#!{build('dialler', '-static')} {SERVER}\n")
    script.chmod(0o755)
    done = switch.run("--ip", VIP, str(build("exec")), "execve", "clean", script.name, cwd=tmp_path)
    assert re.fullmatch(rf"{VIP}:\d+ to {SERVER}:80\n", done.stdout), done


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


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def descendants(pid: int) -> list[int]:
    found = children(pid)
    return [*found, *(grandchild for child in found for grandchild in descendants(child))]


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def traced(process: subprocess.Popen[str]) -> tuple[int, int]:
    """The pids of the program, and of its tracer."""
    program, tracer = next(
        (pid, int(status_of(pid)["TracerPid"]))
        for pid in descendants(process.pid)
        if status_of(pid)["TracerPid"] != "0"
    )
    return program, tracer


def test_the_tracer_is_no_child_of_the_program(waiting: subprocess.Popen[str]) -> None:
    program, tracer = traced(waiting)
    assert descendants(program) == []
    assert status_of(tracer)["Name"] == "appswitch-trace"
    waiting.communicate()
    assert waiting.returncode == 0
    eventually(lambda: has_ended(tracer))


def test_a_killed_tracer(waiting: subprocess.Popen[str]) -> None:
    _, tracer = traced(waiting)
    os.kill(tracer, signal.SIGKILL)
    assert waiting.wait(PATIENCE) == 128 + signal.SIGKILL
    _, said = waiting.communicate()
    assert "the tracer has been killed" in said
    assert "hint: " in said


@pytest.mark.parametrize("attempt", range(5))
def test_a_program_that_is_killed_as_it_forks(switch: Switch, build: Build, attempt: int) -> None:
    """No child stays behind, stopped, for want of its maker's word whose it is."""
    process = switch.spawn(str(build("forker", "-static")), stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    keeper = children(process.pid)[0]
    program = children(keeper)[0]
    os.kill(program, signal.SIGKILL)
    assert process.wait(PATIENCE) == 128 + signal.SIGKILL
    process.stdout.close()
    eventually(lambda: has_ended(keeper))  # it waits for all


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it(waiting: subprocess.Popen[str], number: signal.Signals) -> None:
    program, _ = traced(waiting)
    os.kill(program, number)
    assert waiting.wait(PATIENCE) == 128 + number


def test_it_stops_and_goes_on(waiting: subprocess.Popen[str]) -> None:
    program, _ = traced(waiting)
    os.kill(program, signal.SIGSTOP)
    eventually(lambda: status_of(program)["State"][0] in "tT")
    os.kill(program, signal.SIGCONT)
    eventually(lambda: status_of(program)["State"][0] == "S")
    said, _ = waiting.communicate("\n")
    assert said == "errno 111\n"
    assert waiting.returncode == 0


def switches_of(pid: int) -> int:
    status = status_of(pid)
    return int(status["voluntary_ctxt_switches"])


def test_data_calls_do_not_stop(switch: Switch, build: Build) -> None:
    """The tracer sleeps while a hundred times as much is said."""
    slept = {}
    for count in (20, 2000):
        ip = f"10.77.3.{count % 255}"
        server = switch.spawn("--ip", ip, "--name", f"a{count}", str(build("answer", "-static")), ip, "80")
        switch.wait_for(f"a{count}:80")
        _, tracer = traced(server)
        before = switches_of(tracer)
        client = build("transfer", f"-DCOUNT={count}")
        assert switch.run("--ip", VIP, str(client), ip, "80").stdout == "ok\n"
        slept[count] = switches_of(tracer) - before
    assert slept[2000] <= slept[20] + 10


def test_job_control(switch: Switch, build: Build) -> None:
    """^Z, fg and ^C, at a terminal."""
    shell, terminal = pty.fork()
    if shell == 0:
        os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], {**switch.environment, "PS1": "$ "})
    said = b""

    def until(text: str) -> None:
        nonlocal said
        while text.encode() not in said:
            assert select.select([terminal], [], [], PATIENCE)[0], said
            said += os.read(terminal, 4096)
        said = said.partition(text.encode())[2]

    def type_in(text: str) -> None:
        os.write(terminal, text.encode())

    try:
        until("$ ")  # what is typed before is lost now and then
        type_in(" ".join([*switch.appswitch, "spawn", "--ip", VIP, str(build("dialler", "-static")), VIP, "9"]) + "\n")
        until("errno 111")
        type_in("\x1a")
        until("Stopped")
        until("$ ")
        type_in("fg\n")
        until("dialler-")  # the shell says what goes on
        type_in("\n")
        until("errno 111")
        type_in("\x03")
        until("$ ")
        type_in("echo status $?\n")
        until("status 130")
    finally:
        os.kill(shell, signal.SIGKILL)
        os.waitpid(shell, 0)
        os.close(terminal)
