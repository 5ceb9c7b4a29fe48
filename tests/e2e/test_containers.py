"""Containers that podman runs, in namespaces of their own: they have a directory of the trap handler's mounted."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from appswitch.host.paths import shim_path
from tests.e2e.test_musl import TALK
from tests.harness import PATIENCE, Switch, eventually, running_switch

pytestmark = [pytest.mark.root, pytest.mark.program("podman", "crun", "redis-server", "redis-cli", "musl-gcc", "ip")]

MUSL = Path("/lib/x86_64-linux-musl/libc.so")
CGROUPS = 'umount -qR /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup && exec "$0" "$@"'
"""crun knows cgroups of one version only, and a machine may have both: containers get a view of the second alone."""
REDIS = ["redis-server", "--save", "", "--protected-mode", "no"]


class Podman:
    """Containers beside a trap handler."""

    def __init__(self, switch: Switch, shared: Path, rootfs: Path) -> None:
        self.switch = switch
        self.shared = shared
        self.rootfs = rootfs
        self.room = switch.directory / "podman"
        self.names: list[str] = []

    def command(self, verb: str, *arguments: str) -> list[str]:
        places = ["--root", f"{self.room}/store", "--runroot", f"{self.room}/run", "--tmpdir", f"{self.room}/tmp"]
        flags = ["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "file"]
        return ["unshare", "-m", "sh", "-c", CGROUPS, "podman", *places, *flags, verb, *arguments]

    def _run(self, flags: tuple[str, ...], program: tuple[str, ...], settings: dict[str, str]) -> list[str]:
        name = f"as-{secrets.token_hex(4)}"
        self.names.append(name)
        variables = {"LD_PRELOAD": "/run/appswitch/libappswitch.so", "APPSWITCH_SOCKET": "/run/appswitch/trap.sock"}
        variables |= {f"APPSWITCH_{key.upper()}": value for key, value in settings.items()}
        given = [word for key, value in variables.items() for word in ("-e", f"{key}={value}")]
        limits = ["--cgroups=disabled", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1000:1000"]
        mount = ["-v", f"{self.shared}:/run/appswitch"]
        network = [] if any(flag.startswith("--network") for flag in flags) else ["--network=none"]
        words = [*limits, *network, *mount, *given, *flags, "--rm", "--name", name, "--rootfs", f"{self.rootfs}:O"]
        return self.command("run", *words, *program)

    def start(self, *program: str, flags: tuple[str, ...] = (), **settings: str) -> str:
        """A container in the background; its name."""
        with (self.switch.directory / f"container-{len(self.names)}.log").open("w") as log:
            self.switch._popen(self._run(flags, program, settings), stdout=log, stderr=log)
        return self.names[-1]

    def run(self, *program: str, flags: tuple[str, ...] = (), **settings: str) -> str:
        """A container, to its end; its output."""
        return self._complete(self._run(flags, program, settings))

    def exec(self, name: str, *program: str) -> str:
        """A further program in a container."""
        return self._complete(self.command("exec", name, *program))

    def stop(self, name: str) -> None:
        self._complete(self.command("stop", "-t", "5", name))
        self.names.remove(name)

    def _complete(self, command: list[str]) -> str:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert done.returncode == 0, f"{done}\n{self.switch.logs()}"
        return done.stdout

    def close(self) -> None:
        for name in self.names:
            subprocess.run(
                self.command("rm", "-f", "-t", "0", name), capture_output=True, timeout=PATIENCE, check=False
            )


def put(file: str, rootfs: Path) -> None:
    """Copies a program of this host with the libraries that it needs."""
    libraries = subprocess.run(["ldd", file], capture_output=True, text=True, check=True).stdout
    for each in [file, *re.findall(r"(/\S+) \(0x", libraries)]:
        place = rootfs / each[1:]
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(each, place)


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an image has: redis with its libraries, and a program linked to musl with that."""
    place = tmp_path_factory.mktemp("rootfs")
    for name in ("bin", "dev", "etc", "lib", "proc", "run", "sys", "tmp"):
        (place / name).mkdir()
    for program in ("redis-server", "redis-cli"):
        put(os.path.realpath(f"/usr/bin/{program}"), place)
    for name in ("redis-server", "redis-cli"):
        real = Path(os.path.realpath(f"/usr/bin/{name}"))
        if real.name != name:
            (place / "usr/bin" / name).symlink_to(real.name)
    (place / "talk.c").write_text(TALK)
    subprocess.run(["musl-gcc", "-O1", "-o", place / "bin/talk", place / "talk.c"], check=True)
    shutil.copy(MUSL, place / "lib/ld-musl-x86_64.so.1")
    return place


@pytest.fixture
def podman(rootfs: Path) -> Iterator[Podman]:
    with tempfile.TemporaryDirectory(prefix="as-") as private:  # of mode 0700
        shared = Path(private, "shared")
        with running_switch("--containers", str(shared)) as switch:
            running = Podman(switch, shared, rootfs)
            try:
                yield running
            finally:
                running.close()


def client_of(said: str) -> str:
    found = re.search(r" addr=(\S+):\d+ ", said)
    assert found, said
    return found[1]


def test_containers_find_each_other_by_name(podman: Podman) -> None:
    """And programs of the host find them. Whatever user a container runs as, it is who it says."""
    switch = podman.switch
    name = podman.start(*REDIS, name="cache", ip="10.9.9.1", tags="grp=1")
    switch.wait_for("cache:6379")
    (app,) = switch.rows("ps")
    assert (app["name"], app["ip"], app["tags"], app["netns"]) == ("cache", "10.9.9.1", ["grp=1"], True)
    ask = ["redis-cli", "-h", "cache", "client", "list"]
    for user in ("0", "1000"):
        assert client_of(podman.run(*ask, flags=("--user", user), ip="10.9.9.2", tags="grp=1")) == "10.9.9.2"
    assert client_of(switch.run("--ip", "10.9.9.3", "--tag", "grp=1", *ask).stdout) == "10.9.9.3"
    assert client_of(podman.exec(name, "redis-cli", "client", "list")) == "127.0.0.1", "the same app"
    podman.stop(name)
    eventually(lambda: not switch.rows("ps"))


def test_a_trap_handler_that_is_started_again(podman: Podman) -> None:
    switch = podman.switch
    podman.start(*REDIS, name="cache")
    switch.wait_for("cache:6379")
    switch.kill_server()
    switch.serve("--containers", str(podman.shared))
    switch.wait_for("cache:6379")
    assert podman.run("redis-cli", "-h", "cache", "ping") == "PONG\n"
    (app,) = switch.rows("ps")
    assert (app["id"], app["name"]) == (1, "cache")


def test_an_image_with_musl(podman: Podman) -> None:
    """By a name, which musl asks the DNS server in the container's namespace for; with glibc's programs, too."""
    podman.start("talk", "serve", "7000", name="web", ip="10.9.9.1")
    podman.switch.wait_for("web:7000")
    assert podman.run("talk", "ask", "web", "7000", ip="10.9.9.2") == "10.9.9.2\n"
    assert podman.run("talk", "ask", "web.appswitch.local", "7000", ip="fd00::2").startswith("169.254.")


def test_a_container_with_a_network_of_its_own(podman: Podman) -> None:
    """As in a pod: it is left as it is, and its apps are known by a token."""
    name = f"as{secrets.token_hex(4)}"
    for words in (f"netns add {name}", f"-n {name} link add eth0 type veth peer eth1", f"-n {name} link set lo up",
                  f"-n {name} link set eth0 up", f"-n {name} address add 192.0.2.77/24 dev eth0"):  # fmt: skip
        subprocess.run(["ip", *words.split()], check=True)
    network = (f"--network=ns:/run/netns/{name}",)
    try:
        podman.start("talk", "serve", "7000", flags=network, name="web", ip="10.9.9.1")
        podman.switch.wait_for("web:7000")
        assert podman.run("talk", "ask", "web", "7000", flags=network, ip="10.9.9.2") == "10.9.9.2\n"
        assert podman.run("talk", "ask", "web", "7000", ip="10.9.9.3") == "10.9.9.3\n"
        assert [row["netns"] for row in podman.switch.rows("ps")] == [False]
    finally:
        podman.close()
        subprocess.run(["ip", "netns", "delete", name], check=True)


def test_what_the_variables_say_is_checked(podman: Podman) -> None:
    command = podman._run((), ("redis-cli", "-h", "10.9.9.1", "ping"), {"ip": "127.0.0.1"})
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (
        "appswitch: this program has no network: the trap handler says: 127.0.0.1 can't be a virtual IP" in done.stderr
    )
    assert not podman.switch.rows("ps")


def test_who_has_no_such_directory_is_nobody(podman: Podman) -> None:
    """The trap socket of the host says no, as it does to each namespace that a program makes for itself."""
    socket = ("-v", f"{podman.switch.trap}:/trap.sock", "-e", "APPSWITCH_SOCKET=/trap.sock")
    command = podman._run(socket, ("redis-cli", "-h", "10.9.9.1", "ping"), {"ip": "10.9.9.2"})
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert "only processes of the host's namespace and of our user may register" in done.stderr


def test_the_directory_is_the_owners(switch: Switch) -> None:
    open_one = switch.directory / "open" / "shared"
    done = switch.command(
        "serve", "--socket", f"{switch.directory}/other.sock", "--containers", str(open_one), check=False
    )
    assert done.returncode == 1
    assert f"other users can come to {open_one}\nhint: chmod 700 {open_one.parent}" in done.stderr


def test_the_directory_has_what_is_needed(podman: Podman) -> None:
    """As it is here, and executable by all."""
    for name in ("libappswitch.so", "appswitch-tracer"):
        installed = shim_path().with_name(name)
        assert (podman.shared / name).read_bytes() == installed.read_bytes()
        assert (podman.shared / name).stat().st_mode & 0o777 == 0o755
