"""A gateway that is short of descriptors: who is there goes on, who comes waits or is refused, and the log says it
once.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.test_gateways_relayed import CLIENT, GATEWAY, NGINX, PORT, PROXY_PORT, Scene, scene
from tests.harness import PATIENCE, eventually
from tests.hosts import Namespace, only

pytestmark = [pytest.mark.root, pytest.mark.program("serf", "nginx", "curl", "prlimit")]

HERE = 8090

# COUNT clients that ask at once, and wait for their answers: how many had one within so many seconds. They stay.
ASK = """
import socket, sys, time

def ask():
    s = socket.socket()
    s.settimeout(5)
    s.bind((sys.argv[5], 0))
    s.connect((sys.argv[1], int(sys.argv[2])))
    s.sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    return s

def is_answered(s):
    s.settimeout(max(0.001, until - time.monotonic()))
    try:
        return bool(s.recv(999))
    except OSError:
        return False

clients = [ask() for _ in range(int(sys.argv[3]))]
until = time.monotonic() + float(sys.argv[4])
print(sum(map(is_answered, clients)), flush=True)
sys.stdin.readline()
for s in clients:
    s.sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
until = time.monotonic() + 20
print(sum(map(is_answered, clients)), flush=True)
"""


@contextmanager
def asking(
    outside: Namespace, port: int, count: int, within: float, source: str = CLIENT
) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """So many clients, and how many of them are answered in that time."""
    command = [*outside.enter, sys.executable, "-c", ASK, GATEWAY, str(port), str(count), str(within), source]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield int(process.stdout.readline()), process
        finally:
            process.kill()


def go_on(clients: subprocess.Popen[str]) -> int:
    """How many are answered once more."""
    return int(clients.communicate("\n", timeout=PATIENCE)[0])


def limit(pid: int, more: int) -> None:
    """It may have so many descriptors more than it has: what is limited is their numbers (getrlimit(2))."""
    taken = {int(each.name) for each in Path(f"/proc/{pid}/fd").iterdir()}
    free = (number for number in itertools.count() if number not in taken)
    subprocess.run(["prlimit", "--pid", str(pid), f"--nofile={next(itertools.islice(free, more, None))}:"], check=True)


@pytest.fixture(scope="module")
def common() -> Iterator[Scene]:
    with scene() as made:
        gateway = made.gateway
        config = gateway.directory / "nginx.conf"
        config.write_text(NGINX.format(dir=gateway.directory))
        gateway.spawn("--name", "here", "--expose", f"80:{HERE}", "nginx", "-c", str(config))
        eventually(lambda: only(gateway.rows("services"), name="here"))
        made.get()
        eventually(made.comes_by_lane)
        yield made


def test_a_relay_without_descriptors(common: Scene) -> None:
    """Clients that come by a lane wait; those that are announced are reset."""
    (relay,) = common.relays()
    with asking(common.outside, PORT, 10, 5) as (answered, old):
        assert answered == 10
        limit(relay, 20)
        with asking(common.outside, PORT, 40, 1.5) as (answered, _):
            assert 5 <= answered <= 10
        with asking(common.outside, PROXY_PORT, 40, 1.5) as (answered, _):
            assert 5 <= answered <= 10
        assert common.get(), "they have ended"
        assert go_on(old) == 10
    assert common.relays() == [relay]


def test_a_trap_handler_without_descriptors(common: Scene) -> None:
    """Clients wait, commands too; what needs nothing of it goes on."""
    gateway = common.gateway
    with asking(common.outside, HERE, 5, 5) as (answered, old):
        assert answered == 5
        before = len(gateway.log.read_text())
        limit(gateway.server.pid, 0)
        with asking(common.outside, HERE, 20, 1.5) as (answered, late):
            assert answered <= 2
            assert common.get(), "by a lane"
            command = [*gateway.prefix, *gateway.appswitch, "ps"]
            with subprocess.Popen(command, env=gateway.environment, stdout=subprocess.DEVNULL) as ps:
                eventually(lambda: "commands or DNS queries by TCP can't be accepted" in gateway.log.read_text())
                limit(gateway.server.pid, 100)
                assert ps.wait(PATIENCE) == 0
            assert go_on(late) == 20, "all have been let in"
        assert go_on(old) == 5
    said = gateway.log.read_text()[before:]
    assert said.count("clients can't be accepted: they wait") == 1
    assert said.count("commands or DNS queries by TCP can't be accepted: they wait") == 1
    assert "Traceback" not in said
    assert len(said.splitlines()) < 10
