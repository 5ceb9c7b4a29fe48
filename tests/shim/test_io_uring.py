"""io_uring is refused as by a kernel that has none; programs fall back, and nothing else is in their way."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.harness import Switch, running_switch
from tests.shim.cases import Build, each_compiler

NOBODY = 65534
ENOSYS = "38"


def calls(output: str) -> list[tuple[str, str]]:
    """Each line: who calls, and the errno."""
    return [(who, error) for who, error in (line.rsplit(" ", 1) for line in output.splitlines())]


def refused(output: str) -> bool:
    said = calls(output)
    beside = [error for who, error in said if who.startswith("beside")]
    verdicts = [error for who, error in said if not who.startswith("beside")]
    return beside != [ENOSYS] and len(verdicts) >= 4 and set(verdicts) <= {ENOSYS, "none"}


def readable(switch: Switch, program: Path) -> str:
    """The program where every user may run it."""
    return shutil.copy(str(program), str(switch.directory / "program"))


def test_the_program_knows_io_uring(build: Build) -> None:
    """Without AppSwitch: else what it says under AppSwitch would tell nothing."""
    done = subprocess.run([str(build("io_uring"))], capture_output=True, text=True, check=True)
    assert ENOSYS not in [error for _, error in calls(done.stdout)[:4]]


@pytest.mark.root
@each_compiler
@pytest.mark.parametrize("flags", [[], ["--user", "nobody"], ["--no-netns"]], ids=" ".join)
def test_it_is_refused(switch: Switch, build: Build, flags: list[str], compiler: str) -> None:
    output = switch.run(*flags, readable(switch, build("io_uring", compiler=compiler))).stdout
    assert refused(output), output


@pytest.mark.root
def test_an_ordinary_users_app(build: Build) -> None:
    with running_switch(user=NOBODY) as switch:
        program = readable(switch, build("io_uring"))
        assert refused(switch.run(program).stdout)
        # No filter without a namespace: the shim answers what comes through libc.
        said = calls(switch.run("--no-netns", program).stdout)
        assert said[0][1] != ENOSYS
        assert ("libc", ENOSYS) in said


@pytest.mark.root
def test_setuid_programs_are_not_hindered(switch: Switch) -> None:
    status = switch.run("grep", "-E", "^(NoNewPrivs|Seccomp):", "/proc/self/status").stdout.split()
    assert status == ["NoNewPrivs:", "0", "Seccomp:", "2"]


@pytest.mark.program("fio")
def test_fio(switch: Switch, tmp_path: Path) -> None:
    """By liburing's way: raw system calls."""
    job = ["--name=job", f"--filename={tmp_path / 'data'}", "--size=64k", "--rw=write"]
    done = switch.run("fio", *job, "--ioengine=io_uring", check=False)
    assert re.search(r"err=38/.*Function not implemented", done.stdout + done.stderr), done
    assert switch.run("fio", *job, "--ioengine=sync").returncode == 0


NODE = """
const fs = require("fs"), http = require("http");
const server = http.createServer(async (_, response) => response.end(await fs.promises.readFile(__filename)));
server.listen(80, async () => {
  console.log((await (await fetch("http://127.0.0.1/")).text()).length, fs.readFileSync(__filename).length);
  process.exit();
});
"""


@pytest.mark.program("node")
def test_node_falls_back(switch: Switch, tmp_path: Path) -> None:
    """Asked to, libuv does its file operations by io_uring, and finds out whether it can."""
    program = tmp_path / "program.js"
    program.write_text(NODE)
    said = switch.run("env", "UV_USE_IO_URING=1", "node", str(program)).stdout.split()
    assert said == [str(len(NODE))] * 2
