"""The examples that are programs do what their pages say, by the command that is there, and leave nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.harness import eventually, has_ended, python_for

ROOT = Path(__file__).parents[2]
NOBODY = 65534
PROGRAMS = {
    "figure1": ["nginx", "redis-server", "redis-cli", "curl", "serf"],
    "blue_green": ["nginx", "wrk", "curl"],
    "preload": ["nginx", "curl"],
    "gateway": ["nginx", "curl", "serf"],
    "figure3": ["iperf"],
}


def command(name: str) -> list[str]:
    """As the example's page has it."""
    page = (ROOT / "examples" / name / "README.md").read_text()
    assert f"python -m examples.{name}\n" in page
    return [sys.executable, "-m", f"examples.{name}"]


def options(home: Path) -> dict[str, Any]:
    return {"cwd": ROOT, "env": {**os.environ, "TMPDIR": str(home)}, "stdin": subprocess.DEVNULL, "text": True}


def run(name: str, home: Path, *arguments: str) -> str:
    """What it shows. It succeeds, and its directory is gone."""
    done = subprocess.run([*command(name), *arguments], **options(home), capture_output=True, check=False, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Everything is stopped and removed" in done.stdout
    assert left(home) == []
    said: str = done.stdout
    return said


def left(home: Path) -> list[Path]:
    """Files, and processes: each of these has a path in `home` in its environment or command line."""

    def is_ours(process: Path) -> bool:
        try:
            told = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
        except OSError:
            return False
        return f"{home}/".encode() in told and not has_ended(int(process.name))

    processes = [each for each in Path("/proc").iterdir() if each.name.isdigit() and is_ours(each)]
    return [*home.iterdir(), *processes]


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short, for sockets."""
    return tmp_path_factory.mktemp("x")


@pytest.mark.program("nginx", "curl")
def test_first_light(home: Path) -> None:
    before, after = run("first_light", home).split("SIGKILL")
    assert "Hello from web server 1" in before
    assert "Hello from web server 2" in before
    assert after.count("Hello from web server 2") == 8
    assert "Hello from web server 1" not in after


@pytest.mark.root
@pytest.mark.program(*PROGRAMS["figure1"])
def test_figure1(home: Path) -> None:
    said = run("figure1", home)
    assert "visit 1" in said
    assert "Could not connect to Redis at 127.0.0.1:6379: Connection refused" in said
    assert "Could not connect to Redis at db:6379: Connection refused" in said
    assert "PONG" in said
    assert "deny: web (app a/1) -> db (10.9.9.1) port 6379/tcp" in said


@pytest.mark.program(*PROGRAMS["blue_green"])
def test_blue_green(home: Path) -> None:
    said = run("blue_green", home)
    assert [f"this is {each}" in said for each in ("blue", "green", "blue-2", "green-2")] == [True] * 4
    assert "requests in" in said
    assert "Socket errors:" not in said
    assert "Non-2xx or" not in said


@pytest.mark.program(*PROGRAMS["preload"])
def test_preload(home: Path) -> None:
    said = run("preload", home)
    assert said.count("web server one\n") == said.count("web server two\n") == 2
    assert "the store, to 10.0.0.8" in said
    assert "appswitch spawn --" not in said


@pytest.mark.root
@pytest.mark.program(*PROGRAMS["gateway"])
def test_gateway(home: Path) -> None:
    said = run("gateway", home)
    assert "web sees 192.88.99.1\n" in said
    assert "192.88.99.1 sees 192.88.99.101\n" in said
    assert "deny: web (app inner/1) -> 192.88.99.1 port 80/tcp" in said


@pytest.mark.program(*PROGRAMS["figure3"])
def test_figure3(home: Path, tmp_path: Path) -> None:
    """Shorter than by default."""
    said = run("figure3", home, "--rounds", "1", "--seconds", "0.1", "--into", str(tmp_path))
    ways = ["AppSwitch", "TCP loopback", *(["TCP veth + bridge"] if os.geteuid() == 0 else [])]
    assert f"| write | {' | '.join(ways)} |" in said
    rows = re.findall(r"^ *\| (\d+[KM]?) \| ([0-9.]+) \|", said, re.MULTILINE)
    assert [size for size, _ in rows] == ["64", "512", "4K", "32K", "128K", "1M"]
    picture = (tmp_path / "figure3.svg").read_text()
    assert picture.count("<circle") == len(ways) * len(rows)


@pytest.mark.parametrize(
    ("name", "until", "number"),
    [
        pytest.param("preload", "web server", signal.SIGTERM, marks=pytest.mark.program(*PROGRAMS["preload"])),
        pytest.param(
            "figure1", "redis", signal.SIGINT, marks=[pytest.mark.root, pytest.mark.program(*PROGRAMS["figure1"])]
        ),
    ],
)
def test_interrupted(home: Path, name: str, until: str, number: int) -> None:
    process = subprocess.Popen(
        command(name), **options(home), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    with process:
        assert process.stdout
        assert any(until in line for line in process.stdout)
        os.killpg(process.pid, number)  # as a terminal does
        process.stdout.read()
    assert process.returncode == 128 + number
    eventually(lambda: not left(home))


def test_one_that_fails_says_so(home: Path) -> None:
    """A home that is too deep for a Unix socket's path: the trap handler can't start."""
    deep = home / ("deep" * 25)
    deep.mkdir()
    done = subprocess.run(command("first_light"), **options(deep), capture_output=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "The example failed" in done.stderr
    assert "too long" in done.stderr
    assert left(deep) == []


@pytest.mark.root
@pytest.mark.parametrize("name", ["figure1", "gateway"])
@pytest.mark.program(*PROGRAMS["figure1"])
def test_an_ordinary_user_is_told_what_needs_root(home: Path, name: str) -> None:
    python, environment = python_for(NOBODY)
    done = subprocess.run(
        [python, *command(name)[1:]], cwd=ROOT, env=environment, user=NOBODY, group=NOBODY, extra_groups=[],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("This example needs root: its hosts are network namespaces")
    assert "hint: sudo" in done.stderr


def test_a_program_that_is_missing_is_named(home: Path) -> None:
    done = subprocess.run(
        command("preload"), cwd=ROOT, env={"PATH": "/nowhere"}, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert "This example needs" in done.stderr
    assert "curl" in done.stderr


def test_the_list_has_them_all() -> None:
    page = (ROOT / "examples" / "README.md").read_text()
    for name in [path.parent.name for path in (ROOT / "examples").glob("*/README.md")]:
        assert f"({name}/README.md)" in page
