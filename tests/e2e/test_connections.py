"""`appswitch connections` with real programs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.harness import PATIENCE, Switch, eventually, python_for, running_switch

PYTHON = sys.executable
SEVERAL = """
import signal, socket
made = [socket.create_connection(("db", 6379)) for _ in range(5)]
signal.pause()
"""
DEAF = "import signal, socket; s = socket.create_server(('', 6379)); signal.pause()"


def ends(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["client_name"], row["client_ip"], row["dest_ip"], row["dest_port"], row["server_name"], row["state"]


@pytest.mark.program("redis-server", "redis-cli")
def test_whoever_dials_and_however(switch: Switch) -> None:
    """By the trap handler, by capability, without a namespace, and from the server to itself."""
    switch.spawn("--name", "db", "--ip", "10.1.1.1", "redis-server", "--save", "", "--protected-mode", "no")
    switch.wait_for("db:6379")
    assert switch.rows("connections") == []
    switch.spawn("--name", "a", "--ip", "10.1.1.2", "redis-cli", "-h", "db", "blpop", "k", "0")
    switch.spawn("--name", "b", "--ip", "10.1.1.3", "--no-netns", "redis-cli", "-h", "10.1.1.1", "blpop", "k", "0")
    switch.spawn("--name", "c", "--ip", "10.1.1.1", "redis-cli", "-h", "127.0.0.1", "blpop", "k", "0")
    switch.spawn("--name", "d", "--ip", "10.1.1.4", PYTHON, "-c", SEVERAL)
    eventually(lambda: [row["state"] for row in switch.rows("connections")] == ["established"] * 8)
    assert sorted(map(ends, switch.rows("connections"))) == [
        ("a", "10.1.1.2", "10.1.1.1", 6379, "db", "established"),
        ("b", "10.1.1.3", "10.1.1.1", 6379, "db", "established"),
        ("c", "127.0.0.1", "127.0.0.1", 6379, "db", "established"),
        *[("d", "10.1.1.4", "10.1.1.1", 6379, "db", "established")] * 5,
    ]
    rows = switch.rows("connections")
    assert len({row["client_port"] for row in rows}) == 8
    known = switch.run("--ip", "10.1.1.1", "redis-cli", "-h", "127.0.0.1", "client", "list").stdout
    for row in rows:
        assert f" addr={row['client_ip']}:{row['client_port']} laddr={row['dest_ip']}:{row['dest_port']} " in known


def test_one_that_nobody_accepts(switch: Switch) -> None:
    switch.spawn("--name", "db", PYTHON, "-c", DEAF)
    switch.wait_for("db:6379")
    client = switch.spawn("--name", "d", PYTHON, "-c", SEVERAL)
    eventually(lambda: len(switch.rows("connections")) == 5)
    (ip,) = [row["ip"] for row in switch.rows("ps") if row["name"] == "db"]
    mine = {
        (row["client_name"], row["dest_ip"], row["server_name"], row["state"]) for row in switch.rows("connections")
    }
    assert mine == {("d", ip, "db", "queued")}
    client.terminate()
    eventually(lambda: switch.rows("connections") == [])


RECEIVER = "import signal, socket; s = socket.socket(type=2); s.bind(('', 5353)); print(flush=True); signal.pause()"
SENDER = "import signal, socket; s = socket.socket(type=2); s.connect(('udp', 5353)); signal.pause()"


def test_connected_udp(switch: Switch) -> None:
    switch.spawn("--name", "udp", "--ip", "10.1.1.1", PYTHON, "-c", RECEIVER)
    switch.wait_for("udp:5353")
    switch.spawn("--name", "me", "--ip", "10.1.1.2", PYTHON, "-c", SENDER)
    eventually(lambda: switch.rows("connections"))
    (row,) = switch.rows("connections")
    assert ends(row) == ("me", "10.1.1.2", "10.1.1.1", 5353, "udp", "established")
    assert (row["proto"], row["medium"]) == ("udp", "udp")
    assert row["listener"] is not None


CUT = "import sys; from appswitch.host.cut import shut_down; print(len(shut_down({*map(int, sys.argv[1:])})))"


@pytest.mark.root
@pytest.mark.program("redis-server", "redis-cli")
@pytest.mark.parametrize("user", [None, 65534])
@pytest.mark.parametrize("end", [0, 1], ids=["at the client", "at the server"])
def test_cut(user: int | None, end: int) -> None:
    """By the trap handler's user, be it root or not: the client, and the server, see the end of the connection."""
    with running_switch(user=user) as switch:
        switch.spawn("--name", "db", "redis-server", "--save", "", "--protected-mode", "no", cwd="/tmp")
        switch.wait_for("db:6379")
        client = switch.spawn("--name", "a", "redis-cli", "-h", "db", "blpop", "k", "0")
        other = switch.spawn("--name", "b", "redis-cli", "-h", "db", "blpop", "k", "0")
        eventually(lambda: [row["state"] for row in switch.rows("connections")] == ["established"] * 2)
        inode = next(row["inodes"][end] for row in switch.rows("connections") if row["client_name"] == "a")
        python, environment = python_for(user)
        cut = subprocess.run(
            [python, "-c", CUT, str(inode)],
            env=environment, user=user, stdout=subprocess.PIPE, text=True, check=True, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        assert cut.stdout == "1\n"
        assert client.wait(PATIENCE) == 1, switch.logs()
        assert [row["client_name"] for row in switch.rows("connections")] == ["b"]
        assert switch.run("redis-cli", "-h", "db", "rpush", "k", "v").stdout == "1\n"
        assert other.wait(PATIENCE) == 0
