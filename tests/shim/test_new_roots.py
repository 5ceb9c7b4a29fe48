"""Programs that start where AppSwitch isn't found by its path any more: another root, other mounts, other pids."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import Switch
from tests.shim.cases import VIP, Build

pytestmark = [
    pytest.mark.root,
    pytest.mark.program("busybox-static", "musl-gcc"),
    pytest.mark.usefixtures("way"),
]
SERVER = "10.77.7.1"
LOADER = Path("/lib/ld-musl-x86_64.so.1")


@pytest.fixture(scope="module", autouse=True)
def server(switch: Switch, build: Build) -> None:
    switch.spawn("--ip", SERVER, "--name", "herald", str(build("herald")), SERVER, "80")
    switch.wait_for("herald:80")


@pytest.fixture
def jail(tmp_path: Path, build: Build) -> Path:
    """It holds busybox, `static` and `dynamic`, which dial, and what the latter needs."""
    shutil.copy(shutil.which("busybox") or "", tmp_path / "busybox")
    shutil.copy(build("dialler", "-static"), tmp_path / "static")
    shutil.copy(build("dialler", compiler="musl-gcc"), tmp_path / "dynamic")
    (tmp_path / "lib").mkdir()
    shutil.copy(LOADER, tmp_path / LOADER.relative_to("/"))
    return tmp_path


def run(switch: Switch, *command: str) -> subprocess.CompletedProcess[str]:
    return switch.run("--ip", VIP, *command, check=False)


@pytest.mark.parametrize("dialler", ["/static", "/dynamic"])
@pytest.mark.parametrize("shell", [[], ["/busybox", "sh", "-c", '/busybox true; "$@"', "sh"]], ids=["itself", "shell"])
def test_chroot(switch: Switch, jail: Path, shell: list[str], dialler: str) -> None:
    """No network, but they run."""
    done = run(switch, "busybox", "chroot", str(jail), *shell, dialler, SERVER, "80")
    assert (done.returncode, re.fullmatch(r"errno \d+\n", done.stdout) is not None) == (0, True), done


@pytest.mark.parametrize("dialler", ["/static", "/dynamic"])
def test_chroot_by_a_dynamic_program(switch: Switch, jail: Path, dialler: str) -> None:
    """It inherits a filter, by notify, of a static shell."""
    done = run(switch, "busybox", "sh", "-c", f"chroot {jail} {dialler} {SERVER} 80")
    assert (done.returncode, re.fullmatch(r"errno \d+\n", done.stdout) is not None) == (0, True), done


SPAWN = """
import os, sys
os.chroot(sys.argv[1])
os.chdir("/")
_, status = os.waitpid(os.posix_spawn(sys.argv[2], sys.argv[2:], {}), 0)
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.parametrize("dialler", ["/static", "/dynamic"])
def test_posix_spawn_after_chroot(switch: Switch, jail: Path, dialler: str) -> None:
    """Libc itself makes the exec."""
    done = run(switch, "busybox", "env", sys.executable, "-c", SPAWN, str(jail), dialler, SERVER, "80")
    assert (done.returncode, re.fullmatch(r"errno \d+\n", done.stdout) is not None) == (0, True), done


PIVOT = """
import ctypes, os, sys
libc, jail = ctypes.CDLL(None, use_errno=True), os.fsencode(sys.argv[1])
def check(error):
    if error:
        sys.exit(os.strerror(ctypes.get_errno()))
check(libc.mount(jail, jail, None, 4096, None))  # MS_BIND
os.chdir(jail)
check(libc.syscall(155, b".", b"old"))  # SYS_pivot_root
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.mark.parametrize("dialler", ["/static", "/dynamic"])
def test_pivot_root(switch: Switch, jail: Path, dialler: str) -> None:
    """By a program with the shim that a static one starts."""
    (jail / "old").mkdir()
    pivot = [sys.executable, "-c", PIVOT, str(jail), dialler, SERVER, "80"]
    done = run(switch, "busybox", "unshare", "-m", *pivot)
    assert (done.returncode, re.fullmatch(r"errno \d+\n", done.stdout) is not None) == (0, True), done


@pytest.mark.parametrize("unshare", [["busybox", "unshare"], ["unshare"]], ids=["static", "dynamic"])
def test_other_pids(switch: Switch, build: Build, unshare: list[str]) -> None:
    """/proc is that of before."""
    done = run(switch, *unshare, "-p", "-f", str(build("dialler", "-static")), SERVER, "80")
    assert re.fullmatch(rf"{VIP}:\d+ to {SERVER}:80\n", done.stdout), done
