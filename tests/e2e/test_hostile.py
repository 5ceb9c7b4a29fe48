"""A hostile app at the trap socket, a hostile host at the peer port: the others go on, and nothing is left of them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.test_leaks import CLIENT, SERVER, held_by, holds_no_more, memory_of
from tests.harness import Switch, Talker, eventually
from tests.hosts import Network, network

ROOT = Path(__file__).parents[2]
GROWTH = 24 << 20  # bytes that a trap handler may have more than after the first time
SOON = 5.0  # seconds that a neighbour's connect may take meanwhile; it takes a millisecond when all is quiet


@pytest.fixture
def net() -> Iterator[Network]:
    with network() as made:
        yield made


def neighbour(switch: Switch) -> Talker:
    """An app that connects to another one for each line that it is told."""
    switch.spawn("--name", "web", sys.executable, "-c", SERVER)
    switch.wait_for("web:80")
    client = Talker(switch, sys.executable, "-uc", CLIENT)
    assert client.ask("now") == "here"
    return client


def go_on_beside(hostile: subprocess.Popen[str], client: Talker) -> None:
    """The neighbour connects all the time, until the hostile one has ended."""
    while hostile.poll() is None:
        start = time.monotonic()
        assert client.ask("again") == "here"
        assert time.monotonic() - start < SOON
        time.sleep(0.02)
    assert client.ask("and afterwards") == "here"


def nothing_is_left(switch: Switch, attack: Callable[[Talker], None]) -> None:
    """Of the second attack: there is no more than after the first one, which opens what is opened once."""
    client = neighbour(switch)
    attack(client)
    left, memory = held_by(switch.server.pid), memory_of(switch.server.pid)
    attack(client)
    eventually(lambda: holds_no_more(switch.server.pid, left))
    assert memory_of(switch.server.pid) - memory < GROWTH
    assert "Traceback" not in switch.log.read_text()


def test_a_hostile_app(switch: Switch) -> None:
    words = ["--name", "hostile", sys.executable, "-m", "tests.fuzz.hostile", "app", str(switch.trap)]
    environment = {**switch.environment, "PYTHONPATH": str(ROOT)}

    def attack(client: Talker) -> None:
        go_on_beside(switch.spawn(*words, env=environment), client)
        eventually(lambda: len(switch.rows("ps")) == 2)

    nothing_is_left(switch, attack)
    assert "malformed frame" in switch.log.read_text()


@pytest.mark.root
@pytest.mark.program("serf", "ip")
def test_a_hostile_host(net: Network) -> None:
    """It has the cluster's key, or not."""
    host, other = net.serve("a", "b")
    (row,) = [each for each in host.rows("nodes") if each["name"] == "a"]
    words = [host.address, str(row["port"]), str(net.key), "b", "a"]
    command = [*other.namespace.enter, sys.executable, "-m", "tests.fuzz.hostile", "peer", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def attack(client: Talker) -> None:
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as hostile:
            go_on_beside(hostile, client)
            assert hostile.stdout is not None
            assert int(hostile.stdout.read()) > 1000

    nothing_is_left(host, attack)
    assert "the channel from a node broke" in host.log.read_text()  # once it had shown the key
    eventually(lambda: len(other.rows("nodes")) == 2)
