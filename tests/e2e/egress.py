"""An inner host without a route out, two gateways, and an "internet" that only these reach: for tests of egress."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.harness import eventually, stop
from tests.hosts import INTERNET, INTERNET6, Host, Namespace, Network, network

PYTHON = sys.executable
SERVER, SERVER6 = f"{INTERNET}1", f"{INTERNET6}1"
ABSENT = f"{INTERNET}77"  # nobody has it: the gateway's ARP asks in vain
NOWHERE = "198.51.100.1"  # no gateway has a route to it
CLIENT = ["--name", "client", "--ip", "10.9.9.2"]


class Outside:
    """The internet, and what runs there."""

    def __init__(self, namespace: Namespace, directory: Path) -> None:
        self.namespace = namespace
        self.directory = directory
        self._started: list[subprocess.Popen[str]] = []

    def start(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        with (self.directory / "outside.log").open("a") as log:
            options = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, **options}
            process = subprocess.Popen([*self.namespace.enter, *command], text=True, start_new_session=True, **options)
        self._started.append(process)
        return process

    def listens(self, port: int, kind: str = "tcp") -> None:
        """Waits until somebody does."""
        eventually(lambda: self.namespace.run("ss", "-Hln", f"--{kind}", "sport", f"= :{port}"))

    def end(self) -> None:
        for process in self._started:
            stop(process)
        self._started.clear()


class World:
    """The hosts, and the outside."""

    def __init__(self, net: Network, stack: ExitStack) -> None:
        self.net = net
        self.g1, self.g2, self.inner = net.serve("g1", "g2", "inner", gateways=["g1", "g2"])
        self.gateways = [self.g1, self.g2]
        self.outside = Outside(net.internet(*self.gateways), net.key.parent)
        stack.callback(self.outside.end)
        eventually(lambda: sum(row["gateway"] for row in self.inner.rows("nodes")) == 2)


@pytest.fixture(scope="module")
def shared() -> Iterator[World]:
    with network() as net, ExitStack() as stack:
        yield World(net, stack)


@pytest.fixture
def world(shared: World) -> Iterator[World]:
    """Nothing runs but what the test starts."""
    yield shared
    for host in shared.net.hosts:
        host.end_apps()
    shared.outside.end()
    for host in shared.net.hosts:
        eventually(lambda host=host: not host.rows("ps"))


@pytest.fixture
def own_world() -> Iterator[World]:
    """For a test that breaks it."""
    with network() as net, ExitStack() as stack:
        yield World(net, stack)


def via(host: Host) -> str:
    """As whom the outside sees what comes by this gateway."""
    found = re.search(rf"inet ({re.escape(INTERNET)}\d+)/", host.namespace.run("ip", "addr", "show", "eth1"))
    assert found
    return found[1]
