"""A newer trap handler takes over from the one that serves: no connect fails, and none waits for long."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from appswitch.errors import AppSwitchError
from appswitch.host.paths import control_socket
from appswitch.host.succession import ask
from appswitch.wire.journal import VERSION
from tests.e2e.test_failover import nginx
from tests.e2e.test_leaks import held_by, holds_no_more
from tests.e2e.test_restart import ASKER, DIALLER, ECHO, HELLO, rows
from tests.harness import PATIENCE, Switch, Talker, eventually, free_port, idle_switch
from tests.hosts import network

PYTHON = sys.executable
FIRST_CONNECTS = """
import os, signal, socket, sys, time
where = socket.gethostbyname(sys.argv[1]), 80
going = True
def end(*_):
    global going
    going = False
signal.signal(signal.SIGINT, end)
longest, count, failed = 0, 0, []
print("begun", flush=True)
while going:
    read_end, write_end = os.pipe()
    if os.fork() == 0:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        began = time.monotonic()
        error = socket.socket().connect_ex(where)
        os.write(write_end, f"{error} {time.monotonic() - began}".encode())
        os._exit(0)
    os.close(write_end)
    error, took = os.read(read_end, 99).split()
    os.close(read_end)
    os.wait()
    count += 1
    longest = max(longest, float(took))
    if int(error):
        failed.append(int(error))
print(count, round(1000 * longest), *failed, flush=True)
"""
LONGEST = 2000  # milliseconds that a connect may wait, on a busy machine; some 50 to 150 on a quiet one


class FirstConnects:
    """Connects one after the other, each the first of a process, which so has to ask the trap handler."""

    def __init__(self, switch: Switch, name: str) -> None:
        self._process = switch.spawn(PYTHON, "-c", FIRST_CONNECTS, name)
        self._log: Path = self._process.log  # type: ignore[attr-defined]
        eventually(lambda: "begun" in self._log.read_text())

    def end(self) -> tuple[int, int, list[int]]:
        """How many; the longest took so many milliseconds; the errnos of those that failed."""
        self._process.send_signal(signal.SIGINT)
        assert self._process.wait(PATIENCE) == 0
        count, longest, *failed = map(int, self._log.read_text().splitlines()[-1].split())
        return count, longest, failed


def take_over(switch: Switch, *flags: str) -> None:
    """Returns once the newer one serves and the older one has ended."""
    before = switch.server
    switch.serve("--take-over", *flags)
    assert before.wait(PATIENCE) == 0
    assert switch.server.poll() is None


@pytest.mark.root
@pytest.mark.program("nginx", "wrk")
@pytest.mark.usefixtures("no_copies")  # as long a start as users have it
def test_no_connect_fails_under_load(switch: Switch) -> None:
    nginx(switch, 0)
    wrk = switch.spawn("wrk", "-t", "1", "-c", "8", "-d", "110", "-H", "Connection: close", "http://web/")
    loop = FirstConnects(switch, "web")
    for _ in range(2):
        eventually(lambda: any(row["state"] == "established" for row in switch.rows("connections")))
        take_over(switch)
    count, longest, failed = loop.end()
    wrk.send_signal(signal.SIGINT)
    assert wrk.wait(PATIENCE) == 0
    said = wrk.log.read_text()  # type: ignore[attr-defined]
    assert int(re.findall(r"(\d+) requests in", said)[0]) > 1000
    assert "Socket errors" not in said, said
    assert "has gone" not in said, "there is nothing that `spawn` should say"
    assert failed == []
    assert count > 50
    assert longest < LONGEST


@pytest.mark.root
def test_all_is_as_before(switch: Switch) -> None:
    """Identities, connections, names and UDP; the second newer one takes over what the first has taken over."""
    switch.spawn("--name", "web", "--ip", "10.9.9.1", "--tag", "x=1", PYTHON, "-c", HELLO, "web")
    switch.spawn("--no-netns", "--name", "other", PYTHON, "-c", HELLO, "other")
    switch.spawn("--name", "echo", PYTHON, "-c", ECHO)
    switch.wait_for("web:80", "other:80", "echo:5000")
    client = Talker(switch, "--name", "client", PYTHON, "-c", DIALLER)
    asker = Talker(switch, "--ip", "10.9.9.3", PYTHON, "-c", ASKER)
    assert asker.hear() == "ready"
    assert client.ask("web 80").startswith("web sees 100.")
    before = rows(switch)
    for _ in range(2):
        take_over(switch)
        assert client.ask("web.appswitch.local 80").startswith("web sees 100.")
        assert client.ask("other 80").startswith("other sees 100.")
        assert asker.ask("") == "connected from 10.9.9.3 loose from 10.9.9.3"
        eventually(lambda: rows(switch) == before)
        assert switch.run(PYTHON, "-c", DIALLER, input="web 80\n").stdout.startswith("web sees 169.254.")


def test_its_sockets_go_with_the_last_one(switch: Switch) -> None:
    take_over(switch)
    assert switch.trap.exists()
    switch.server.terminate()
    assert switch.server.wait(PATIENCE) == 0
    assert not switch.trap.exists()
    assert not control_socket(switch.trap).exists()


def test_where_nobody_serves_it_just_starts() -> None:
    with idle_switch() as switch:
        switch.serve("--take-over")
        assert switch.rows("ps") == []


def test_the_map_s_port_and_the_containers_socket(switch: Switch) -> None:
    """None of them is ever closed, as long as it is wanted."""
    place, directory = f"127.0.0.1:{free_port()}", switch.directory / "its" / "containers"
    directory.parent.mkdir(mode=0o700)
    flags = ["--http", place, "--containers", str(directory)]
    take_over(switch, *flags)  # from one that has neither
    inode = (directory / "trap.sock").stat().st_ino
    take_over(switch, *flags)
    assert (directory / "trap.sock").stat().st_ino == inode
    host, port = place.split(":")
    with socket.create_connection((host, int(port)), PATIENCE) as client:
        client.sendall(f"GET /healthz HTTP/1.1\r\nHost: {place}\r\nConnection: close\r\n\r\n".encode())
        assert client.makefile().readline().startswith("HTTP/1.1 200")
    take_over(switch)  # by one that has neither
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), PATIENCE)


def test_the_newer_one_holds_no_more_than_the_older_one(switch: Switch) -> None:
    # that of --ready-fd may be closing
    listing = ["ls", "-l", f"/proc/{switch.server.pid}/fd"]
    eventually(lambda: "pipe:" not in subprocess.run(listing, capture_output=True, text=True, check=False).stdout)
    before = held_by(switch.server.pid)
    take_over(switch)
    eventually(lambda: holds_no_more(switch.server.pid, before))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--node", "n2"], "the trap handler here is node n1"),
        (["--node", "n1", "--state-dir", "/tmp"], "with its state in"),
        (["--node", "n1", "--http", "192.0.2.1:80"], "can't be used"),
        (["--node", "n1", "--bind", "192.0.2.1"], "can't be used"),
    ],
    ids=["node", "state", "http", "bind"],
)
def test_a_newer_one_that_can_t_changes_nothing(switch: Switch, flags: list[str], said: str) -> None:
    switch.spawn("--no-netns", "--name", "web", PYTHON, "-c", HELLO, "web")
    switch.wait_for("web:80")
    done = switch.command("serve", "--take-over", *flags, check=False)
    assert done.returncode != 0
    assert said in done.stderr
    assert "hint: " in done.stderr
    assert "Traceback" not in done.stderr
    assert switch.server.poll() is None
    assert switch.run("--no-netns", PYTHON, "-c", DIALLER, input="web 80\n").stdout.startswith("web sees")


def test_one_of_two_takes_over(switch: Switch) -> None:
    """A newer one that vanishes, or comes too late, has got nothing, and so does nothing."""
    state_dir = switch.directory / "trap.sock.state"
    vanishing, late = (ask(switch.trap, "n1", state_dir, VERSION) for _ in range(2))
    assert vanishing is not None
    assert late is not None
    vanishing.close()
    assert switch.rows("ps") == []
    take_over(switch)
    with pytest.raises(AppSwitchError, match="lets another one take over"):
        late.release()
    late.close()
    assert switch.rows("ps") == []
    with pytest.raises(AppSwitchError, match=f"version {VERSION}"):
        ask(switch.trap, "n1", state_dir, VERSION + 1)


@pytest.mark.root
def test_an_app_may_not(switch: Switch) -> None:
    code = "import sys; from pathlib import Path; from appswitch.host.succession import ask\n"
    code += f"ask(Path({str(switch.trap)!r}), 'n1', Path({str(switch.directory / 'trap.sock.state')!r}), {VERSION})"
    done = switch.run(PYTHON, "-c", code, check=False)
    assert "can't be done from inside app" in done.stderr
    assert switch.rows("ps") == []


@pytest.mark.root
@pytest.mark.program("serf")
def test_a_host_of_a_cluster() -> None:
    """The others go on connecting to its apps, and never see it leave."""
    with network() as net:
        one, two = net.serve("one", "two")
        one.spawn("--name", "web", PYTHON, "-c", HELLO, "web")
        two.wait_for("web:80")
        loop = FirstConnects(two, "web")
        take_over(one, "--join", two.address, "--key-file", str(net.key))
        one.command("nodes", "--wait", "--timeout", "20")
        eventually(lambda: two.tables().keys() == {"one", "two"})
        count, longest, failed = loop.end()
        assert failed == []
        assert count > 3
        assert longest < LONGEST
