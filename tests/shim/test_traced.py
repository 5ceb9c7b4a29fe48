"""Static programs, by notify and by ptrace: exec to and from them, their end, job control, data calls."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.harness import PATIENCE, Switch, eventually, has_ended
from tests.shim.cases import VIP, WAYS, Build

WITH_ENVIRONMENT = [
    "execve", "execle", "execvpe", "execveat", "execve-syscall", "fexecve", "posix_spawn", "posix_spawnp", "vfork",
]  # fmt: skip
SERVER = "10.77.2.1"


@pytest.fixture(autouse=True, params=WAYS)
def way(request: pytest.FixtureRequest, switch: Switch, monkeypatch: pytest.MonkeyPatch) -> str:
    """How programs are trapped."""
    monkeypatch.setitem(switch.environment, "APPSWITCH_TRACER", request.param)
    return str(request.param)


def only(way: str) -> pytest.MarkDecorator:
    """For a test of one way."""
    return pytest.mark.parametrize("way", [way], indirect=True)


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


def program_of(process: subprocess.Popen[str]) -> int:
    """The pid of the program that `spawn` has started."""
    keeper = children(process.pid)[0]
    return children(keeper)[0]


def tracer_of(process: subprocess.Popen[str]) -> int:
    return int(status_of(program_of(process))["TracerPid"])


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
    keeper = children(waiting.pid)[0]
    program = program_of(waiting)
    eventually(lambda: children(keeper) == [program])
    assert tracer_of(waiting) == 0
    assert descendants(program) == []


@only("notify")
@pytest.mark.program("strace")
def test_a_debugger_may_look(waiting: subprocess.Popen[str], tmp_path: Path) -> None:
    with watched(program_of(waiting), tmp_path / "log"):
        assert waiting.communicate("\n")[0] == "errno 111\n"
    assert re.search(r"SIGSYS.*SYS_SECCOMP.*__NR_connect", (tmp_path / "log").read_text())


@only("ptrace")
def test_a_killed_tracer(waiting: subprocess.Popen[str]) -> None:
    tracer = tracer_of(waiting)
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
    os.kill(program_of(process), signal.SIGKILL)
    assert process.wait(PATIENCE) == 128 + signal.SIGKILL
    process.stdout.close()
    eventually(lambda: has_ended(keeper))  # it waits for all


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it(waiting: subprocess.Popen[str], number: signal.Signals) -> None:
    program = program_of(waiting)
    os.kill(program, number)
    assert waiting.wait(PATIENCE) == 128 + number


def test_it_stops_and_goes_on(waiting: subprocess.Popen[str]) -> None:
    program = program_of(waiting)
    os.kill(program, signal.SIGSTOP)
    eventually(lambda: status_of(program)["State"][0] in "tT")
    os.kill(program, signal.SIGCONT)
    eventually(lambda: status_of(program)["State"][0] == "S")
    said, _ = waiting.communicate("\n")
    assert said == "errno 111\n"
    assert waiting.returncode == 0


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
def test_data_calls_are_not_trapped(switch: Switch, build: Build, tmp_path: Path) -> None:
    """No more signals come while a hundred times as much is said."""
    trapped = {}
    for count in (20, 2000):
        server, ip = served(switch, build, f"b{count}")
        with watched(server, tmp_path / "log"):
            say(switch, build, ip, count)
        log = (tmp_path / "log").read_text()
        assert "__NR_accept" in log
        trapped[count] = log.count("SYS_SECCOMP")
    assert trapped[2000] <= trapped[20] + 1


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
