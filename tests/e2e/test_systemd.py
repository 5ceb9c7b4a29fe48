"""systemd's protocols: the trap handler as a service, and programs that get their sockets from systemd.

PID 1 of the machine where this runs may be anything: systemd-socket-activate does the one half, a socket of the test's
own is told the other.
"""

from __future__ import annotations

import fcntl
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from appswitch.host import privileges
from appswitch.host.paths import shim_path
from tests.harness import PATIENCE, Switch, eventually, free_port, idle_switch, running_switch

UNITS = Path(__file__).parents[2] / "packaging/systemd"
ECHO = """
import os, socket, sys
assert os.environ["LISTEN_PID"] == str(os.getpid()), os.environ["LISTEN_PID"]
assert "LISTEN_PIDFDID" not in os.environ
count = int(os.environ["LISTEN_FDS"])
listeners = [socket.socket(fileno=3 + at) for at in range(count)]
for listener in listeners:
    connection, peer = listener.accept()
    connection.sendall(f"{listener.getsockname()} {connection.getsockname()} {peer}".encode())
    connection.close()
"""
ASK = "import socket, sys; print(socket.create_connection(('web', 8000), 20).recv(99).decode())"
SERVE = """
import socket
listener = socket.create_server(("", 8000))
while True:
    connection, _ = listener.accept()
    connection.sendall(b"here")
    connection.close()
"""


class Notified:
    """A service manager's ear."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(PATIENCE)

    def hear(self, what: str) -> str:
        """The next message that says it."""
        while what not in (said := self.socket.recv(4096).decode()).splitlines()[0]:
            pass
        return said


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Notified]:
    heard = Notified(tmp_path / "notify")
    with heard.socket:
        yield heard


@contextmanager
def service(manager: Notified, *flags: str, **variables: str) -> Iterator[Switch]:
    """`serve` as systemd starts it."""
    with idle_switch() as switch:
        switch.environment |= {"NOTIFY_SOCKET": str(manager.path), **variables}
        switch.serve(*flags)
        for variable in ("NOTIFY_SOCKET", *variables):
            del switch.environment[variable]
        yield switch


def test_a_service_says_how_it_is(manager: Notified) -> None:
    with service(manager, WATCHDOG_USEC="300000") as switch:
        assert manager.hear("READY=1") == "READY=1\nSTATUS=n1: 0 apps"
        assert manager.hear("WATCHDOG=1")
        switch.spawn("--name", "web", sys.executable, "-c", SERVE)
        assert manager.hear("STATUS=") == "STATUS=n1: 1 app"
        switch.server.send_signal(signal.SIGHUP)  # without a policy it is none the worse for it
        manager.hear("RELOADING=1")
        assert manager.hear("READY=1") == "READY=1"
        assert switch.run(sys.executable, "-c", ASK).stdout == "here\n"
        switch.server.terminate()
        assert manager.hear("STOPPING=1")
        assert switch.server.wait(PATIENCE) == 0


def test_what_it_starts_says_nothing(manager: Notified) -> None:
    """A program's own NOTIFY_SOCKET isn't that of the trap handler which `spawn` starts."""
    with idle_switch() as switch:
        switch.environment |= {"NOTIFY_SOCKET": str(manager.path)}
        assert switch.run("sh", "-c", "echo $NOTIFY_SOCKET").stdout == f"{manager.path}\n"
        manager.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.socket.recv(4096)


@pytest.mark.program("serf")
def test_ready_says_that_the_cluster_is_joined(manager: Notified) -> None:
    here, there = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    with running_switch("--node", "other", "--bind", there) as other:
        flags = ["--node", "one", "--bind", here, "--join", there]
        with service(manager, *flags):
            assert manager.hear("READY=1") == "READY=1\nSTATUS=one: 0 apps, 2 hosts"
            assert {row["name"] for row in other.rows("nodes")} == {"one", "other"}


def by_systemd(switch: Switch) -> None:
    """`serve` once somebody calls at the trap socket."""
    serve = [*switch.appswitch, "serve", "--socket", str(switch.trap)]
    switch._popen(["systemd-socket-activate", "--seqpacket", "-l", str(switch.trap), *serve])
    eventually(switch.trap.exists)


def by_another(switch: Switch) -> None:
    """As PID 1 does it: the process that has made the socket (SO_PEERCRED of unix(7)) goes on. (This one is us.)"""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as trap:
        trap.bind(str(switch.trap))
        switch.trap.chmod(0o666)
        trap.listen()
        wait = "import socket, sys; s = socket.socket(fileno=0); import select; select.select([s], [], [])"
        script = f'"$0" -c "{wait}" && LISTEN_PID=$$ LISTEN_FDS=1 exec "$@" 3<&0'
        command = ["bash", "-c", script, *switch.appswitch[:1], *switch.appswitch, "serve"]
        switch._popen(command, stdin=trap.fileno())


@pytest.mark.program("systemd-socket-activate")
@pytest.mark.parametrize("start", [by_systemd, by_another])
def test_the_trap_socket_is_given(start: Callable[[Switch], None]) -> None:
    """A program calls, and waits in the queue: that starts the trap handler. Its own connections it then knows."""
    with idle_switch() as switch:
        preloaded = {**switch.environment, "LD_PRELOAD": str(shim_path()), "APPSWITCH_NAME": "web"}
        start(switch)
        switch._popen([sys.executable, "-c", SERVE], env=preloaded)
        eventually(switch.trap.with_name("trap.sock.control").exists)
        switch.wait_for("web:8000")
        for flags in ([], ["--no-netns"]):
            assert switch.run(*flags, sys.executable, "-c", ASK).stdout == "here\n"
        switch.close()
        assert switch.trap.exists(), "it is the service manager's"


def sockets_for(switch: Switch, listeners: list[socket.socket], *spawn: str) -> subprocess.Popen[str]:
    """A program under `spawn` that is given `listeners` as systemd does."""
    script = "import os, sys\nfor fd in range(3, 3 + int(sys.argv[1])): os.set_inheritable(fd, True)\n"
    script += 'os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": sys.argv[1], "LISTEN_PIDFDID": "1"}\n'
    script += "os.execvp(sys.argv[2], sys.argv[2:])\n"
    program = [sys.executable, "-c", script, str(len(listeners)), *switch.appswitch, "spawn", *spawn]
    numbers = " ".join(f"{3 + at}<&{each.fileno()}" for at, each in enumerate(listeners))
    high = [each.fileno() for each in listeners]
    assert min(high) > 9, "a shell's redirection of one of them would hide another"
    return switch._popen(["bash", "-c", f'exec "$@" {numbers}', "-", *program], pass_fds=high, stdout=subprocess.PIPE)


def high(made: socket.socket) -> socket.socket:
    """The same with a large number."""
    with made:
        return socket.socket(fileno=fcntl.fcntl(made.fileno(), fcntl.F_DUPFD_CLOEXEC, 100))


@pytest.mark.parametrize("flags", [[], ["--no-netns"]], ids=["netns", "no-netns"])
def test_listeners_that_are_passed_on(switch: Switch, tmp_path: Path, flags: list[str]) -> None:
    """They are what they were: the host's. And the program is another process than the one that was meant."""
    tcp = high(socket.create_server(("127.0.0.1", 0)))
    unix = high(socket.socket(socket.AF_UNIX))
    unix.bind(str(tmp_path / "unix"))
    unix.listen()
    here = tcp.getsockname()
    with tcp, unix:
        program = sockets_for(switch, [tcp, unix], *flags, "--name", "web", sys.executable, "-c", ECHO)
        with socket.create_connection(here, PATIENCE) as client:
            assert client.makefile().read() == f"{here} {here} {client.getsockname()}"
        with socket.socket(socket.AF_UNIX) as other:
            other.settimeout(PATIENCE)
            other.connect(str(tmp_path / "unix"))
            assert other.makefile().read() == f"{tmp_path}/unix {tmp_path}/unix "
        assert program.wait(PATIENCE) == 0


def test_nobody_but_the_program_holds_them(switch: Switch) -> None:
    """Once it has closed a listener, it is closed, though the program and so its keeper go on."""
    tcp = high(socket.create_server(("127.0.0.1", 0)))
    here = tcp.getsockname()
    closing = "import os, sys; os.close(3); print('closed', flush=True); sys.stdin.read()"
    program = sockets_for(switch, [tcp], sys.executable, "-c", closing)
    tcp.close()
    assert program.stdout is not None
    assert program.stdout.readline() == "closed\n"

    def is_refused() -> bool:
        try:
            socket.create_connection(here, 1).close()
        except ConnectionRefusedError:
            return True
        return False

    eventually(is_refused)


@pytest.mark.program("systemd-socket-activate")
def test_a_program_under_spawn_by_systemd_itself(switch: Switch) -> None:
    port = free_port()
    command = ["systemd-socket-activate", "-l", f"127.0.0.1:{port}", "-E", "APPSWITCH_SOCKET", *switch.appswitch]
    program = switch._popen([*command, "spawn", "--name", "web", sys.executable, "-c", ECHO], stderr=subprocess.DEVNULL)

    def answer() -> str:
        try:
            with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
                return client.makefile().read()
        except ConnectionRefusedError:
            return ""

    eventually(answer)
    assert program.wait(PATIENCE) == 0


def lines(unit: str) -> dict[str, str]:
    text = (UNITS / unit).read_text()
    return dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))


@pytest.mark.program("systemd-analyze")
@pytest.mark.parametrize("unit", sorted(path.name for path in UNITS.iterdir()))
def test_systemd_reads_the_units(unit: str, tmp_path: Path) -> None:
    """All of them, where the program that they start is there."""
    for path in UNITS.iterdir():
        (tmp_path / path.name).write_text(path.read_text().replace("/usr/bin/appswitch", "/bin/true"))
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=one", str(tmp_path / unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.root
@pytest.mark.program("redis-server", "redis-cli")
def test_what_root_keeps_is_enough() -> None:
    """No more than the unit says: apps with a namespace and without, of other users, by TCP, UDP and name."""
    unit = lines("appswitch.service")["CapabilityBoundingSet"].split()
    assert {word.removeprefix("CAP_").lower() for word in unit} == set(privileges.KEPT)
    port = free_port()
    with idle_switch() as switch:  # not in pytest's directory, which is for its own user only
        server = switch.serve("--gateway")
        kept = sum(1 << number for number in privileges.KEPT.values())
        had = privileges.held()
        assert privileges.held(server.pid) == {name: mask & kept for name, mask in had.items()} != had
        redis = ["redis-server", "--save", "", "--protected-mode", "no"]
        switch.spawn("--name", "cache", "--user", "nobody", *redis)
        switch.spawn("--name", "web", "--no-netns", "--expose", f"8000:{port}", sys.executable, "-c", SERVE)
        switch.wait_for("cache:6379", "web:8000")
        for flags in ([], ["--no-netns"], ["--tcp"], ["--user", "nobody"], ["--user", "nobody", "--no-netns"]):
            assert switch.run(*flags, "redis-cli", "-h", "cache", "ping").stdout == "PONG\n", flags
            assert switch.run(*flags, "/usr/bin/python3", "-c", ASK).stdout == "here\n", flags
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
            assert client.recv(9) == b"here"
        udp = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('127.0.0.1', 0))"
        udp += "; s.sendto(b'x', s.getsockname()); s.settimeout(9); print(s.recv(9))"
        assert switch.run("--no-netns", "--name", "u", sys.executable, "-c", udp).stdout == "b'x'\n"
        assert switch.rows("services")
        assert "ermitted" not in switch.log.read_text()
        assert "keep the host's UDP" not in switch.log.read_text()
