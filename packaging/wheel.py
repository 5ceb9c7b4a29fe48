"""Builds the sdist, and the wheel of it, into a directory; and tries both with each Python that is there.

It is built twice, in directories of different names: the bytes must be the same. auditwheel names the oldest glibc that
the programs and modules in it run with (manylinux, PEP 600).

    python packaging/wheel.py DIRECTORY [PYTHON...]
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from commands import run

TREE = Path(__file__).resolve().parent.parent
PYTHONS = [f"python3.{minor}" for minor in range(11, 20)]
TALK = """
set -e
"$0" spawn --name web --ip 10.9.9.1 python3 -m http.server -d / 8000 2>/dev/null & server=$!
trap 'kill $server; wait' EXIT
"$0" spawn --wait-for web:8000 --wait-timeout 30 python3 -c '
import urllib.request; print(urllib.request.urlopen("http://web:8000/").status)'
"""
"""A server and a client, and the trap handler that the first of them starts."""


def build(place: Path) -> tuple[Path, Path]:
    """(sdist, wheel) of what git knows, and what is new here, as it is in a fresh checkout at `place`."""
    sources = run("git", "ls-files", "-co", "--exclude-standard", cwd=TREE).splitlines()
    for each in sources:
        (place / each).parent.mkdir(parents=True, exist_ok=True)
        if (TREE / each).is_file():
            shutil.copy(TREE / each, place / each)
    environment = {**os.environ, "SOURCE_DATE_EPOCH": run("git", "log", "-1", "--format=%ct", cwd=TREE).strip()}
    run(sys.executable, "-m", "build", "--outdir", place / "built", place, env=environment)
    (sdist,), (wheel,) = (place / "built").glob("*.tar.gz"), (place / "built").glob("*.whl")
    return sdist, wheel


def build_twice(directory: Path, room: Path) -> tuple[Path, Path]:
    """(sdist, wheel) in `directory`, with their final names. room: for the work."""
    (sdist, wheel), (_, again) = build(room / "a"), build(room / "another place")
    if wheel.read_bytes() != again.read_bytes():
        sys.exit(f"{wheel} and {again} differ: something in them depends on where or when they were built")
    run(sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", room / "repaired", wheel)
    (repaired,) = (room / "repaired").iterdir()
    return Path(shutil.copy(sdist, directory)), Path(shutil.copy(repaired, directory))


def try_it(package: Path, python: str, room: Path) -> None:
    """Installs a wheel or an sdist in an environment of its own, and has a client talk to a server."""
    place = room / f"{package.suffix}_{python}".replace("/", "_")
    run(python, "-m", "venv", place)
    run(place / "bin/pip", "install", "-q", package)
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("APPSWITCH_", "PYTHON"))},
        "APPSWITCH_SOCKET": str(place / "t/trap.sock"),
        "PATH": f"{place}/bin:{os.environ['PATH']}",
    }
    said = run("sh", "-c", TALK, place / "bin/appswitch", cwd=place, env=environment)
    if said != "200\n":
        sys.exit(f"{python}: {said!r}")
    shim = run(place / "bin/appswitch", "--shim-path", env=environment)
    print(f"{run(python, '--version').strip()}, {package.name}: a client reaches a server through {shim.strip()}")


def main() -> None:
    """See above."""
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    pythons = sys.argv[2:] or [name for name in PYTHONS if is_there(name)]
    with tempfile.TemporaryDirectory(prefix="as-") as name:
        room = Path(name)
        packages = build_twice(directory, room)
        print(f"{packages[1]}: the same bytes from two places")
        for python in pythons:
            for package in packages:
                try_it(package, python, room)
    print(f"{len(pythons)} passed, 0 failed")


def is_there(python: str) -> bool:
    """Whether it runs: pyenv has names for those that it isn't set to."""
    path = shutil.which(python)
    return path is not None and subprocess.run([path, "-c", "import venv"], capture_output=True).returncode == 0


if __name__ == "__main__":
    main()
