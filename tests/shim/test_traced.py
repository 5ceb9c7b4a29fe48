"""The tracer: exec to and from it, the end of either, and that data calls don't stop."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.harness import PATIENCE, Switch, eventually, has_ended
from tests.shim.cases import VIP, Build
from tests.shim.tracees import children, descendants, status_of, traced

WITH_ENVIRONMENT = [
    "execve", "execle", "execvpe", "execveat", "execve-syscall", "posix_spawn", "posix_spawnp", "vfork", "thread",
]  # fmt: skip
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
def test_exec_there_and_back(switch: Switch, build: Build) -> None:
    """Four times by turns, with an environment that keeps nothing."""
    turns = [word for kind in ("-static", "", "-static", "") for word in (_kind(build, "exec", kind), "execve", "none")]
    for last in ("", "-static"):
        done = switch.run("--ip", VIP, *turns, _kind(build, "dialler", last), SERVER, "80")
        assert re.fullmatch(rf"{VIP}:\d+ to {SERVER}:80\n", done.stdout), done


def _kind(build: Build, name: str, kind: str) -> str:
    return str(build(name, *filter(None, [kind])))


@pytest.mark.usefixtures("server")
def test_a_static_program_that_may_be_anywhere(switch: Switch, build: Build) -> None:
    """No interpreter, but of the type of a library (ET_DYN)."""
    done = switch.run("--ip", VIP, str(build("dialler", "-static-pie")), SERVER, "80")
    assert re.fullmatch(rf"{VIP}:\d+ to {SERVER}:80\n", done.stdout), done


def test_calls_without_any_library(switch: Switch, build: Build) -> None:
    assert switch.run(str(build("assembly", "-static", "-nostdlib"))).stdout == "ok\n"


@pytest.mark.usefixtures("server")
@pytest.mark.program("strace")
def test_under_strace(switch: Switch, build: Build, tmp_path: Path) -> None:
    """A process has one tracer: a message says what that means. Nothing gets between a debugger and its program."""
    seen = tmp_path / "seen"
    strace = ["--ip", VIP, "strace", "-f", "-e", "trace=execve", "-o", str(seen)]
    done = switch.run(*strace, "sh", "-c", f"{_kind(build, 'dialler', '-static')} {SERVER} 80")
    assert re.fullmatch(r"errno \d+\n", done.stdout), done
    assert "can't be traced" in done.stderr
    assert "hint: something traces it already" in done.stderr
    assert "appswitch-tracer" not in seen.read_text()
    done = switch.run(*strace, _kind(build, "dialler", ""), SERVER, "80")
    assert re.fullmatch(rf"{VIP}:\d+ to {SERVER}:80\n", done.stdout), done


@pytest.mark.usefixtures("server")
def test_a_script_for_a_static_program(switch: Switch, build: Build, tmp_path: Path) -> None:
    """Its interpreter gets SERVER, as the script's argument, and the script's name."""
    script = tmp_path / "80"
    script.write_text(f"#!{build('dialler', '-static')} {SERVER}\n")
    script.chmod(0o755)
    done = switch.run("--ip", VIP, str(build("exec")), "execve", "clean", script.name, cwd=tmp_path)
    assert re.fullmatch(rf"{VIP}:\d+ to {SERVER}:80\n", done.stdout), done


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


@pytest.mark.program("busybox-static")
def test_a_killed_tracer_of_several(switch: Switch) -> None:
    """All that it traces, a dynamic program among them, ends with it; one message."""
    script = "sleep 600 & bash -c 'echo ready; sleep 600; true' & busybox sleep 600 & wait"
    process = switch.spawn("busybox", "sh", "-c", script, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    program, tracer = traced(process)
    eventually(lambda: len(descendants(program)) == 4)
    all_of_them = [program, *descendants(program)]
    assert {status_of(pid)["TracerPid"] for pid in all_of_them} == {str(tracer)}
    os.kill(tracer, signal.SIGKILL)
    for pid in all_of_them:
        eventually(lambda pid=pid: has_ended(pid))
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + signal.SIGKILL
    assert said.count("the tracer has been killed") == 1


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
