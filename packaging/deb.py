"""Builds the Debian package of a wheel, and tries it.

    python packaging/deb.py WHEEL DIRECTORY

What Debian 12 has in a version that will do, the package depends on; the rest comes along, in an environment of its own
in /usr/lib/appswitch (as dh-virtualenv does it), since trio, attrs and others are too old there and msgspec is missing.
It is tried in a mount namespace that shows /usr as if it were installed: as root only.
"""

from __future__ import annotations

import gzip
import os
import shutil
import sys
import tempfile
import time
from email.utils import formatdate
from pathlib import Path

from commands import run

HERE = Path(__file__).resolve().parent
PYTHON = "/usr/bin/python3"
HOME = "usr/lib/appswitch"
FROM_DEBIAN = {
    "click": "python3-click (>= 8.1)",
    "pyyaml": "python3-yaml (>= 6.0)",
}
CONTROL = """\
Package: appswitch
Version: {version}
Architecture: {architecture}
Maintainer: AppSwitch <appswitch@localhost>
Installed-Size: {size}
Depends: {depends}
Recommends: serf
Section: net
Priority: optional
Description: IP, name and tags for any unmodified program
 AppSwitch gives a program an IP address, a name and tags of its own, and has
 programs find and reach each other by these, on one host or on several,
 without touching the network. A preload library takes the place of the
 network's control calls; a trap handler answers them.
"""
POSTINST = """\
#!/bin/sh
set -e
# Nothing is started or enabled: systemctl enable --now appswitch.socket appswitch-control.socket appswitch.service
if [ "$1" = configure ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload
fi
"""
POSTRM = """\
#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
fi
if [ "$1" = purge ]; then
    rm -rf /var/lib/appswitch
fi
"""
DEFAULTS = """\
# How `appswitch serve` is called as a service: options, as appswitch-serve(1) has them.
#SERVE_OPTIONS="--join 192.0.2.1 --key-file /etc/appswitch/key"
"""
COMMAND = """\
#!/usr/lib/appswitch/bin/python3
from appswitch.cli.main import main

main()
"""
OVERRIDES = """\
# Its own environment, with what Debian has too old or not at all; compiled, since `spawn` has to start quickly.
appswitch: package-installs-python-bytecode
appswitch: package-installs-python-pycache-dir
appswitch: embedded-library
appswitch: wrong-path-for-interpreter
appswitch: absolute-symlink-in-top-level-folder
# It is for one's own machines; nobody uploads it.
appswitch: bogus-mail-host
appswitch: bogus-mail-host-in-debian-changelog
# The preload library has no libc, the tracer no dynamic linker: on purpose.
appswitch: shared-library-lacks-prerequisites
appswitch: statically-linked-binary
appswitch: library-not-linked-against-libc
"""
TRY = """
set -e
mount -t overlay overlay -o "lowerdir=$1/usr:/usr" /usr
cd /
appswitch spawn --name web --ip 10.9.9.1 /usr/bin/python3 -m http.server -d /usr/share/doc/appswitch 8000 2>/dev/null &
server=$!
trap 'kill $server; wait' EXIT
appswitch spawn --wait-for web:8000 --wait-timeout 30 /usr/bin/python3 -c '
import urllib.request; print(urllib.request.urlopen("http://web:8000/copyright").status)'
appswitch --shim-path
man -w -M /usr/share/man appswitch-spawn 2>/dev/null || ls /usr/share/man/man1/appswitch-spawn.1.gz
"""


def put(root: Path, place: str, text: str, mode: int = 0o644) -> None:
    """A file of the package; one that ends in .gz is packed."""
    path = root / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0) if path.suffix == ".gz" else text.encode())
    path.chmod(mode)


def install(wheel: Path, root: Path) -> str:
    """The environment, and what it makes of itself; the version."""
    home = root / HOME
    run(PYTHON, "-m", "venv", "--without-pip", home)
    pip = [sys.executable, "-m", "pip", "--python", str(home / "bin/python3"), "-q"]
    run(*pip, "install", "--no-compile", wheel)
    run(*pip, "uninstall", "-y", "pycparser", *FROM_DEBIAN)
    configuration = (home / "pyvenv.cfg").read_text().replace("packages = false", "packages = true")
    (home / "pyvenv.cfg").write_text(
        "".join(f"{line}\n" for line in configuration.splitlines() if "command =" not in line)
    )
    for each in home.glob("bin/*"):
        if not each.name.startswith("python"):
            each.unlink()
    for each in home.glob("include"):
        shutil.rmtree(each)
    for each in (*home.rglob("*.so"), *home.rglob("appswitch-tracer"), *home.rglob("appswitch-relay")):
        run("strip", "--strip-unneeded", each)
    for each in home.rglob("direct_url.json"):
        each.unlink()
    put(root, "usr/bin/appswitch", COMMAND, 0o755)
    ask: list[str | Path] = [home / "bin/python3", "-BP", "-m", "appswitch"]
    run(home / "bin/python3", "-BP", "-c", MANUAL, root / "usr/share/man/man1")
    for page in (root / "usr/share/man/man1").iterdir():
        put(root, f"usr/share/man/man1/{page.name}.gz", page.read_text())
        page.unlink()
    for shell, place in (
        ("bash", "bash-completion/completions/appswitch"),
        ("zsh", "zsh/vendor-completions/_appswitch"),
        ("fish", "fish/vendor_completions.d/appswitch.fish"),
    ):
        put(root, f"usr/share/{place}", run(*ask, "completion", shell))
    run(home / "bin/python3", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "-s", root, "-p", "/",
        home / "lib")  # fmt: skip
    return run(*ask, "--version").split()[-1]


MANUAL = "import sys; from pathlib import Path; from appswitch.cli.manual import write; p = Path(sys.argv[1]); "
MANUAL += "p.mkdir(parents=True); write(p)"


def furnish(root: Path, version: str) -> None:
    """All but the program."""
    for unit in sorted((HERE / "systemd").iterdir()):
        put(root, f"lib/systemd/system/{unit.name}", unit.read_text())
    put(root, "etc/default/appswitch", DEFAULTS)
    put(root, "usr/share/doc/appswitch/copyright",
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\n"
        "Copyright: 2026 the authors of AppSwitch\nLicense: Apache-2.0\n"
        " Apache License; on Debian systems the whole text is in\n"
        " /usr/share/common-licenses/Apache-2.0. What comes along in /usr/lib/appswitch has its own\n"
        " licenses beside it.\n")  # fmt: skip
    when = formatdate(int(os.environ.get("SOURCE_DATE_EPOCH", time.time())), localtime=False)
    entry = f"appswitch ({version}) unstable; urgency=medium\n\n  * As CHANGELOG.md of the sources says.\n\n"
    put(root, "usr/share/doc/appswitch/changelog.gz", f"{entry} -- AppSwitch <appswitch@localhost>  {when}\n")
    put(root, "usr/share/lintian/overrides/appswitch", OVERRIDES)
    put(root, "DEBIAN/conffiles", "/etc/default/appswitch\n")
    put(root, "DEBIAN/postinst", POSTINST, 0o755)
    put(root, "DEBIAN/postrm", POSTRM, 0o755)
    files = [path for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink()]
    packed = [path for path in files if "DEBIAN" not in path.parts]
    sums = run("md5sum", *[str(path.relative_to(root)) for path in packed], cwd=str(root))
    put(root, "DEBIAN/md5sums", sums)
    minor = int(run(PYTHON, "-c", "import sys; print(sys.version_info.minor)"))
    python = f"python3 (>= 3.{minor}~), python3 (<< 3.{minor + 1}~), libc6 (>= 2.34)"
    control = CONTROL.format(
        version=version,
        architecture=run("dpkg", "--print-architecture").strip(),
        size=sum(path.stat().st_size for path in packed) // 1024,
        depends=", ".join([python, *FROM_DEBIAN.values()]),
    )
    put(root, "DEBIAN/control", control)


def try_it(package: Path, room: Path) -> None:
    """Unpacks it over /usr, for one process to see, and has a client talk to a server."""
    run("dpkg-deb", "-x", package, room / "unpacked")
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("APPSWITCH_", "PYTHON", "VIRT"))
    }
    environment |= {"APPSWITCH_SOCKET": f"{room}/trap.sock", "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}
    said = run("unshare", "-m", "sh", "-c", TRY, "sh", room / "unpacked", env=environment).splitlines()
    shim, manual = f"/{HOME}/lib/python3", "/usr/share/man/man1/appswitch-spawn.1.gz"
    if said[0] != "200" or not said[1].startswith(shim) or said[2] != manual:
        sys.exit(f"not as it should be: {said}")


def main() -> None:
    """See above."""
    wheel, directory = Path(sys.argv[1]), Path(sys.argv[2])
    os.umask(0o022)
    with tempfile.TemporaryDirectory(prefix="as-") as name:
        room = Path(name)
        root = room / "root"
        root.mkdir(mode=0o755)
        version = install(wheel, root)
        furnish(root, version)
        package = directory / f"appswitch_{version}_{run('dpkg', '--print-architecture').strip()}.deb"
        run("dpkg-deb", "--root-owner-group", "-z3", "--build", root, package)
        print(f"{package}: {package.stat().st_size // 1024} KiB")
        print(run("lintian", "--fail-on", "error", "--tag-display-limit", "0", package) or "lintian has nothing to say")
        if os.geteuid() == 0:
            try_it(package, room)
            print("1 passed, 0 failed")


if __name__ == "__main__":
    main()
