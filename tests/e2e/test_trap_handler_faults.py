"""A trap handler that is slow, stopped or killed, or whose clock jumps; and one whose directory is spoilt."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_restart import DIALLER, HELLO
from tests.harness import Switch, Talker, eventually, idle_switch

PYTHON = sys.executable
WITHIN = 1.0  # seconds from when it serves again
FAKETIME = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)
CONNECT = """
import socket, sys, time
for line in sys.stdin:
    began = time.monotonic()
    error = socket.socket().connect_ex(("10.9.9.1", 80))
    print(error, time.monotonic() - began, flush=True)
"""


@pytest.mark.root
def test_once_it_serves_again_connects_succeed_within_a_second(switch: Switch) -> None:
    """Of a program that had a channel, and of one that had called before and waits since it was killed."""
    switch.spawn("--name", "web", "--ip", "10.9.9.1", PYTHON, "-c", HELLO, "web")
    switch.wait_for("web:80")
    later, waiting = (Talker(switch, PYTHON, "-c", CONNECT) for _ in range(2))
    for each in (later, waiting):
        assert each.ask("").startswith("0 ")
    switch.kill_server()
    waiting.say("")
    switch.serve()
    began = time.monotonic()
    assert waiting.hear().startswith("0 ")
    assert time.monotonic() - began < WITHIN
    error, took = later.ask("").split()
    assert error == "0"
    assert float(took) < WITHIN


@pytest.mark.root
def test_a_stopped_one_holds_up_what_asks_it_and_nothing_else(switch: Switch) -> None:
    switch.spawn("--name", "web", "--ip", "10.9.9.1", PYTHON, "-c", HELLO, "web")
    switch.wait_for("web:80")
    known, fresh = (Talker(switch, PYTHON, "-c", CONNECT) for _ in range(2))
    for _ in range(4):  # from the third on by capability
        assert known.ask("").startswith("0 ")
    assert fresh.ask("").startswith("0 ")
    switch.server.send_signal(signal.SIGSTOP)
    fresh.say("")
    assert known.ask("").startswith("0 ")
    switch.server.send_signal(signal.SIGCONT)
    assert fresh.hear().startswith("0 ")


@pytest.fixture
def jumpy() -> Iterator[tuple[Switch, Path]]:
    """A trap handler whose wall clock is as far from the true one as the file says; CLOCK_MONOTONIC isn't, ever."""
    with idle_switch() as switch:
        offset = switch.directory / "offset"
        offset.write_text("+0d")
        faked = {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(offset),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        plain, switch.environment = switch.environment, {**switch.environment, **faked}
        switch.serve()
        switch.environment = plain
        yield switch, offset


@pytest.mark.root
@pytest.mark.program("faketime")
def test_a_clock_that_jumps(jumpy: tuple[Switch, Path]) -> None:
    """Back by ten days, ahead by as many: nothing waits for it, nothing is given up by it."""
    switch, offset = jumpy
    switch.spawn("--name", "web", "--ip", "10.9.9.1", PYTHON, "-c", HELLO, "web")
    switch.wait_for("web:80")
    client = Talker(switch, "--name", "client", PYTHON, "-c", DIALLER)
    assert client.ask("web 80").startswith("web sees")
    times = []
    for number, jump in enumerate(("-10d", "+10d", "-10d")):
        offset.write_text(jump)
        assert client.ask("web 80").startswith("web sees")
        name = f"late{number}"
        late = switch.spawn("--name", name, PYTHON, "-c", HELLO, name)
        switch.wait_for(f"{name}:80")
        times.append(switch.events("--kind", "app", "--app", name)[-1]["time"])
        assert client.ask(f"{name} 80").startswith(name)
        assert {"web", "client", name} <= {row["name"] for row in switch.rows("ps")}
        os.killpg(late.pid, signal.SIGKILL)
        late.wait()
        eventually(lambda name=name: name not in {row["name"] for row in switch.rows("ps")})
    assert times[0] < times[1] > times[2], "it did jump"


@pytest.mark.root
@pytest.mark.parametrize(
    "spoilt", [b"", b"\0" * 999, b'{"is":"head","version":999}\n'], ids=["empty", "zeros", "version"]
)
def test_a_state_that_it_can_t_read(switch: Switch, spoilt: bytes) -> None:
    """It is kept aside, said, and begun anew; the programs whose identity went with it are strangers."""
    switch.spawn("--name", "web", "--ip", "10.9.9.1", PYTHON, "-c", HELLO, "web")
    switch.wait_for("web:80")
    switch.kill_server()
    state = switch.directory / "trap.sock.state"
    for name in ("journal", "life", "externals.json"):
        (state / name).write_bytes(spoilt)
    (state / "listeners" / "as.nonsense").write_bytes(spoilt)
    switch.serve()
    assert "can't be read" in switch.log.read_text()
    assert (state / "journal.aside-1").read_bytes() == spoilt
    assert switch.rows("ps") == []
    switch.spawn("--name", "web", "--ip", "10.9.9.1", PYTHON, "-c", HELLO, "web")
    switch.wait_for("web:80")
    assert switch.run(PYTHON, "-c", DIALLER, input="web 80\n").stdout.startswith("web sees")
