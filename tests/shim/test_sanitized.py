"""The small programs with the library built under AddressSanitizer and UndefinedBehaviorSanitizer.

A sanitizer has to be there first, so programs are started by env(1) with both in LD_PRELOAD. `pointers` isn't among
them, for there the sanitizer objects to the program. Of the others a few are run with all tests; where SANITIZED is
"all", as `./dev fuzz` has it, so are the rest.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.harness import PATIENCE, Switch
from tests.shim.cases import VIP, Build

ROOT = Path(__file__).parents[2]
FLAGS = [
    "-std=gnu11", "-O1", "-g", "-fPIC", "-shared", "-ffreestanding", "-fvisibility=hidden", "-mgeneral-regs-only",
    "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-iquote", "shim",
]  # fmt: skip
OPTIONS = {"ASAN_OPTIONS": "detect_leaks=0:handle_segv=0:exitcode=99", "UBSAN_OPTIONS": "print_stacktrace=1"}
FEW = ["accept", "options", "udp_messages"]
REST = [
    "bind", "closing", "connect", "data", "epoll", "identity", "jail", "replace", "sharing", "signals", "syscalls",
    "udp_arguments", "udp_bind", "udp_connect", "udp_data",
]  # fmt: skip


@pytest.fixture(scope="module")
def preload(tmp_path_factory: pytest.TempPathFactory) -> str:
    """LD_PRELOAD's value."""
    directory = tmp_path_factory.mktemp("sanitized")
    directory.chmod(0o755)
    library = directory / "libappswitch.so"
    sources = sorted([*(ROOT / "shim").glob("*.c"), *(ROOT / "shim" / "landing").glob("*.c")])
    subprocess.run(["gcc", *FLAGS, "-o", library, *sources], cwd=ROOT, check=True, timeout=4 * PATIENCE)
    found = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    return f"{Path(found.stdout.strip()).resolve()}:{library}"


def run(switch: Switch, preload: str, *command: str) -> str:
    words = [f"LD_PRELOAD={preload}", *(f"{key}={value}" for key, value in OPTIONS.items()), *command]
    done = switch.run("--ip", VIP, "env", *words, check=False, timeout=100)
    assert done.returncode == 0, f"{done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    return done.stdout


@pytest.mark.program("gcc")
def test_it_is_the_sanitized_library(switch: Switch, preload: str) -> None:
    maps = run(switch, preload, "cat", "/proc/self/maps")
    assert {line.split()[-1] for line in maps.splitlines() if "libappswitch" in line} == {preload.split(":")[1]}


@pytest.mark.program("gcc")
@pytest.mark.parametrize("program", FEW + (REST if os.environ.get("SANITIZED") == "all" else []))
def test_no_sanitizer_objects(switch: Switch, preload: str, build: Build, program: str) -> None:
    made = Path(preload.split(":")[1]).with_name(program)  # env(1) would take a path with a = for a variable
    made.unlink(missing_ok=True)
    made.symlink_to(build(program, "-DSECONDS=60"))
    said = run(switch, preload, str(made))
    assert "pass " in said
    assert "FAIL " not in said
