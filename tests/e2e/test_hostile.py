"""A hostile app at the trap socket, a hostile host at the peer port: the others go on, and nothing is left of them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.test_leaks import held_by, holds_no_more
from tests.harness import PATIENCE, Switch, Talker, eventually
from tests.hosts import Host, Network, network

ROOT = Path(__file__).parents[2]
SERVER = "import socket; s = socket.create_server(('', 80))\nwhile True: s.accept()[0].sendall(b'here')"
CLIENT = """
import socket
while input():
    print(socket.create_connection(("web", 80)).recv(9).decode(), flush=True)
"""
GROWTH = 24 << 20  # bytes that a trap handler may have more than after the first time
SOON = 5.0  # seconds that a neighbour's connect may take meanwhile; it takes a millisecond when all is quiet


@pytest.fixture
def net() -> Iterator[Network]:
    with network() as made:
        yield made


def memory_of(pid: int) -> int:
    """Bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def neighbour(switch: Switch) -> Iterator[Talker]:
    switch.spawn("--name", "web", sys.executable, "-c", SERVER)
    switch.wait_for("web:80")
    client = Talker(switch, sys.executable, "-uc", CLIENT)
    assert client.ask("now") == "here"
    try:
        yield client
    finally:
        for pipe in (client.process.stdin, client.process.stdout):
            assert pipe is not None
            pipe.close()


def go_on_beside(hostile: subprocess.Popen[str], client: Talker) -> None:
    """The neighbour connects all the time, until the hostile one has ended."""
    while hostile.poll() is None:
        start = time.monotonic()
        assert client.ask("again") == "here"
        assert time.monotonic() - start < SOON
        time.sleep(0.02)
    assert client.ask("and afterwards") == "here"


def test_a_hostile_app(switch: Switch) -> None:
    with neighbour(switch) as client:
        _have_an_app_beside(switch, client)


def _have_an_app_beside(switch: Switch, client: Talker) -> None:
    words = ["--name", "hostile", sys.executable, "-m", "tests.fuzz.hostile", "app", str(switch.trap)]
    environment = {**switch.environment, "PYTHONPATH": str(ROOT)}
    left: list[tuple[int, int]] = []
    memory: list[int] = []
    for _ in range(2):
        go_on_beside(switch.spawn(*words, env=environment), client)
        eventually(lambda: len(switch.rows("ps")) == 2)
        eventually(lambda: not left or holds_no_more(switch.server.pid, left[0]))
        left.append(held_by(switch.server.pid))
        memory.append(memory_of(switch.server.pid))
    assert memory[1] - memory[0] < GROWTH
    assert "Traceback" not in switch.log.read_text()
    assert "malformed frame" in switch.log.read_text()


@pytest.mark.root
@pytest.mark.program("serf", "ip")
def test_a_hostile_host(net: Network) -> None:
    """It has the cluster's key, or not."""
    host, other = net.serve("a", "b")
    with neighbour(host) as client:
        _have_a_host_beside(net, host, other, client)


def _have_a_host_beside(net: Network, host: Host, other: Host, client: Talker) -> None:
    (row,) = [each for each in host.rows("nodes") if each["name"] == "a"]
    words = [host.address, str(row["port"]), str(net.key), "b", "a"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    left: list[tuple[int, int]] = []
    memory: list[int] = []
    for _ in range(2):
        command = [*other.namespace.enter, sys.executable, "-m", "tests.fuzz.hostile", "peer", *words]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as hostile:
            go_on_beside(hostile, client)
            assert hostile.stdout is not None
            assert int(hostile.stdout.read()) > 1000
        eventually(lambda: not left or holds_no_more(host.server.pid, left[0]), PATIENCE)
        left.append(held_by(host.server.pid))
        memory.append(memory_of(host.server.pid))
    assert memory[1] - memory[0] < GROWTH
    assert "Traceback" not in host.log.read_text()
    assert "the channel from a node broke" in host.log.read_text()  # once it had shown the key
    eventually(lambda: len(other.rows("nodes")) == 2)
