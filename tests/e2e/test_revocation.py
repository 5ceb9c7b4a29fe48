"""What shims know by heart (capabilities, verdicts) against what changes meanwhile: connects race with it, 10,000 times
each. What has been said before a connect begins holds for it.
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from appswitch.host.control_client import ControlClient
from tests.harness import PATIENCE, Switch, reload, running_switch

PYTHON = sys.executable
CONNECTS = 10_000
DENY = '[[rule]]\naction = "deny"\nto = {name = "web"}\n'

SERVER = """
import socket
s = socket.create_server(("", 80), backlog=4096)
while True:
    c = s.accept()[0]
    try:
        c.send(b"stays")
    except OSError:
        pass
    c.close()
"""
# Listens for some connects, and closes; tells when, in pairs: from then, until then nobody may get here.
COMES_AND_GOES = """
import socket, sys, time
while True:
    s = socket.socket()
    s.bind(("", 80))
    print(time.monotonic_ns(), flush=True)
    s.listen(4096)
    s.settimeout(1)
    for _ in range(20):
        c = s.accept()[0]
        try:
            c.send(b"goes")
        except OSError:
            pass
        c.close()
    s.close()
    print(time.monotonic_ns(), end=" ", flush=True)
"""
# Prints [began, ended, what was read, or the name of the error] for each connect.
CLIENT = """
import json, socket, sys, time
told = []
for _ in range(int(sys.argv[1])):
    c = socket.socket()
    began = time.monotonic_ns()
    try:
        c.connect(("10.9.9.1", 80))
    except OSError as error:
        said = type(error).__name__
    else:
        try:
            said = c.recv(9).decode()
        except OSError:
            said = ""
    told.append((began, time.monotonic_ns(), said))
    c.close()
json.dump(told, sys.stdout)
"""

Connects = list[tuple[int, int, str]]


def inside(windows: list[tuple[int, int]], connects: Connects) -> list[str]:
    """What became of the connects that began and ended within one of the windows, which are in order."""
    starts = [start for start, _ in windows]
    places = [(bisect.bisect(starts, began) - 1, ended, said) for began, ended, said in connects]
    return [said for place, ended, said in places if place >= 0 and ended < windows[place][1]]


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    file = tmp_path / "policy.toml"
    file.write_text("")
    return file


@pytest.fixture
def policed(policy: Path) -> Iterator[Switch]:
    with running_switch("--policy", str(policy)) as running:
        yield running


def connect(switch: Switch) -> subprocess.Popen[str]:
    return switch.spawn("--name", "client", PYTHON, "-c", CLIENT, str(CONNECTS))


def told_by(client: subprocess.Popen[str]) -> Connects:
    client.wait(PATIENCE)
    told: Connects = json.loads(client.log.read_text())  # type: ignore[attr-defined]
    return told


def test_no_connect_passes_once_policy_says_no(policed: Switch, policy: Path) -> None:
    policed.spawn("--name", "web", "--ip", "10.9.9.1", PYTHON, "-c", SERVER)
    policed.wait_for("web:80")
    denied: list[tuple[int, int]] = []
    allowed: list[tuple[int, int]] = []
    said = time.monotonic_ns()
    client = connect(policed)
    with contextlib.closing(ControlClient(policed.trap)) as control:
        for turn in itertools.count():
            if client.poll() is not None:
                break
            time.sleep(0.01)  # for some connects
            before = time.monotonic_ns()
            (denied if turn % 2 else allowed).append((said, before))
            reload(policed, policy, "" if turn % 2 else DENY, "rules=0" if turn % 2 else "rules=1")
            control.call("nodes")  # whose answer comes after all that the reload does
            said = time.monotonic_ns()
    connects = told_by(client)
    assert len(connects) == CONNECTS
    refused, served = inside(denied, connects), inside(allowed, connects)
    assert set(refused) == {"ConnectionRefusedError"}
    assert set(served) == {"stays"}
    assert len(denied) > 2
    assert len(served) > CONNECTS / 10


def test_no_connect_gets_to_an_instance_that_has_gone(switch: Switch) -> None:
    """Nor does one fail, since another is there."""
    switch.spawn("--name", "web", "--ip", "10.9.9.1", PYTHON, "-c", SERVER)
    switch.wait_for("web:80")
    goes = switch.spawn("--name", "web", "--ip", "10.9.9.1", PYTHON, "-c", COMES_AND_GOES, stdout=subprocess.PIPE)
    connects = told_by(connect(switch))
    goes.terminate()
    times = [line.split() for line in goes.communicate(timeout=PATIENCE)[0].splitlines()]
    gone = [(int(line[0]), int(line[1])) for line in times if len(line) == 2]
    said = {said for _, _, said in connects}
    assert len(connects) == CONNECTS
    assert said <= {"stays", "goes", ""}  # empty: it waited in the queue that was closed
    assert {"stays", "goes"} <= said
    assert set(inside(gone, connects)) <= {"stays"}
    assert len(gone) > 2
