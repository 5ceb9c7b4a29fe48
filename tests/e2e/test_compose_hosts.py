"""One file, two hosts: each runs what `x-appswitch: {node: ...}` gives it, and waits for the other's."""

from __future__ import annotations

import json
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.harness import PATIENCE, eventually
from tests.hosts import Host, network

pytestmark = [pytest.mark.root, pytest.mark.program("serf", "redis-server", "redis-cli")]

FILE = """
name: shop
services:
  client:
    command: sh -c "redis-cli -h db set k v && exec sleep 1000"
    healthcheck: {disable: true}
    depends_on: {db: {condition: service_healthy}}
    x-appswitch: {node: a}
  db:
    command: redis-server --save '' --protected-mode no
    x-appswitch: {node: b}
  ghost: {command: sleep 1000, x-appswitch: {node: c}}
"""


def ps(host: Host, file: Path) -> dict[str, str]:
    """Program -> its state."""
    rows = json.loads(host.command("compose", "ps", "--json", "--file", str(file)).stdout)
    return {row["name"]: row["state"] for row in rows}


def test_each_host_runs_its_part(tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(FILE)
    with network() as net:
        a, b = net.serve("a", "b")
        up = ["compose", "--file", str(file), "up", "--no-color"]
        first = subprocess.Popen([*a.prefix, *a.appswitch, *up], env=a.environment, stdout=subprocess.PIPE, text=True)
        with first, ExitStack() as stack:
            stack.callback(first.kill)
            assert first.stdout
            said = [next(line for line in first.stdout if "is run by" in line) for _ in range(2)]
            assert "db is run by node b, and this is a: run `appswitch compose up` there, too" in said[0]
            assert "ghost is run by node c, and this is a: there is no such node yet" in said[1]
            eventually(lambda: ps(a, file) == {"client-1": "waiting"})
            told = b.command(*up[:-1], "-d", "--wait").stderr
            assert "client is run by node a, and this is b" in told
            assert ps(b, file) == {"db-1": "healthy"}
            assert any("OK" in line for line in first.stdout), "the client on a has reached the db on b"
            assert ps(a, file) == {"client-1": "running"}
            (db,) = a.rows("services")
            assert (db["name"], db["node"]) == ("db", "b")
            for host in (a, b):
                host.command("compose", "--file", str(file), "down")
            assert first.wait(PATIENCE) == 0
