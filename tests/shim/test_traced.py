"""Static programs, by notify and by ptrace: exec to and from them, their end, data calls."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness import PATIENCE, Switch, eventually, has_ended
from tests.shim.cases import VIP, Build
from tests.shim.tracees import children, descendants, only, program_of, status_of, tracer_of

WITH_ENVIRONMENT = [
    "execve", "execle", "execvpe", "execveat", "execve-syscall", "fexecve", "posix_spawn", "posix_spawnp", "vfork",
    "thread",
]  # fmt: skip
SERVER = "10.77.2.1"
pytestmark = pytest.mark.usefixtures("way")


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


@only("ptrace")
def test_the_tracer_is_no_child_of_the_program(waiting: subprocess.Popen[str]) -> None:
    program, tracer = program_of(waiting), tracer_of(waiting)
    assert descendants(program) == []
    assert status_of(tracer)["Name"] == "appswitch-trace"
    waiting.communicate()
    assert waiting.returncode == 0
    eventually(lambda: has_ended(tracer))


@only("notify")
def test_no_tracer_stays(waiting: subprocess.Popen[str]) -> None:
    keeper, program = children(waiting.pid)[0], program_of(waiting)
    eventually(lambda: children(keeper) == [program])
    assert tracer_of(waiting) == 0


@contextmanager
def watched(pid: int, log: Path) -> Iterator[None]:
    """What strace, a debugger, writes to `log` about the process."""
    command = ["strace", "-p", str(pid), "-o", str(log)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
        try:
            assert strace.stderr is not None
            assert "attached" in strace.stderr.readline()
            yield
        finally:
            strace.terminate()


@only("notify")
@pytest.mark.program("strace")
def test_a_debugger_may_look(waiting: subprocess.Popen[str], tmp_path: Path) -> None:
    with watched(program_of(waiting), tmp_path / "log"):
        assert waiting.communicate("\n")[0] == "errno 111\n"
    assert re.search(r"SIGSYS.*SYS_SECCOMP.*__NR_connect", (tmp_path / "log").read_text())


@only("ptrace")
def test_a_killed_tracer(waiting: subprocess.Popen[str]) -> None:
    os.kill(tracer_of(waiting), signal.SIGKILL)
    assert waiting.wait(PATIENCE) == 128 + signal.SIGKILL
    _, said = waiting.communicate()
    assert "the tracer has been killed" in said
    assert "hint: " in said


@only("ptrace")
@pytest.mark.program("busybox-static")
def test_a_killed_tracer_of_several(switch: Switch) -> None:
    """All that it traces, a dynamic program among them, ends with it; one message."""
    script = "sleep 600 & bash -c 'echo ready; sleep 600; true' & busybox sleep 600 & wait"
    process = switch.spawn("busybox", "sh", "-c", script, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    program, tracer = program_of(process), tracer_of(process)
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
    os.kill(program_of(process), signal.SIGKILL)
    assert process.wait(PATIENCE) == 128 + signal.SIGKILL
    process.stdout.close()
    eventually(lambda: has_ended(keeper))  # it waits for all


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it(waiting: subprocess.Popen[str], number: signal.Signals) -> None:
    os.kill(program_of(waiting), number)
    assert waiting.wait(PATIENCE) == 128 + number


def served(switch: Switch, build: Build, name: str) -> tuple[int, str]:
    """A static server, NAME:80: its pid, and its address."""
    ip = f"10.77.3.{len(switch.rows('services')) + 1}"
    server = switch.spawn("--ip", ip, "--name", name, str(build("answer", "-static")), ip, "80")
    switch.wait_for(f"{name}:80")
    return program_of(server), ip


def say(switch: Switch, build: Build, ip: str, count: int) -> None:
    """To such a server, `count` times."""
    client = build("transfer", f"-DCOUNT={count}")
    assert switch.run("--ip", VIP, str(client), ip, "80").stdout == "ok\n"


@only("ptrace")
def test_data_calls_do_not_stop(switch: Switch, build: Build) -> None:
    """The tracer sleeps while a hundred times as much is said."""
    slept = {}
    for count in (20, 2000):
        server, ip = served(switch, build, f"a{count}")
        tracer = int(status_of(server)["TracerPid"])
        before = int(status_of(tracer)["voluntary_ctxt_switches"])
        say(switch, build, ip, count)
        slept[count] = int(status_of(tracer)["voluntary_ctxt_switches"]) - before
    assert slept[2000] <= slept[20] + 10


@only("notify")
@pytest.mark.program("strace")
def test_data_calls_are_not_trapped(switch: Switch, build: Build, tmp_path: Path) -> None:
    """No more signals come while a hundred times as much is said."""
    trapped = {}
    for count in (20, 2000):
        server, ip = served(switch, build, f"b{count}")
        log = tmp_path / f"log{count}"
        with watched(server, log):
            say(switch, build, ip, count)
            eventually(lambda log=log, count=count: log.read_text().count('"answer"') == count)
        trapped[count] = log.read_text().count("SYS_SECCOMP")
    assert trapped[2000] <= trapped[20] + 5
