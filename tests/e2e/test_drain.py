"""`appswitch drain`, under load and without."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.test_failover import CLIENT, SERVER, nginx
from tests.harness import PATIENCE, Switch, eventually

PYTHON = sys.executable
HOLD = """
import socket, sys
s = socket.create_connection(("web", 7000))
print(s.recv(9), flush=True)
sys.stdin.readline()
s.close()
print("closed", flush=True)
sys.stdin.readline()
"""
KEEPING = """
import socket, threading
s = socket.create_server(("", 7000))
def answer(c):
    with c:
        c.sendall(b"here")
        c.recv(1)
while True:
    threading.Thread(target=answer, args=[s.accept()[0]], daemon=True).start()
"""
WITH_ITSELF = """
import signal, socket, threading
s = socket.create_server(("", 7000))
def answer():
    while True:
        c, _ = s.accept()
        c.sendall(b"own")
threading.Thread(target=answer, daemon=True).start()
kept = socket.create_connection(("127.0.0.1", 7000))
def ask(*_):
    print(socket.create_connection(("127.0.0.1", 7000)).recv(9), flush=True)
signal.signal(signal.SIGUSR1, ask)
while True:
    signal.pause()
"""


def instance(switch: Switch, program: str, *arguments: str) -> int:
    """Starts an instance of web; its id."""
    before = {row["app"] for row in switch.rows("services")}
    switch.spawn("--name", "web", PYTHON, "-c", program, *arguments)
    eventually(lambda: {row["app"] for row in switch.rows("services")} - before)
    (number,) = {row["app"] for row in switch.rows("services")} - before
    return int(number)


def states(switch: Switch) -> dict[int, str]:
    """Of each app that serves."""
    return {row["app"]: row["state"] for row in switch.rows("services")}


@contextmanager
def holding(switch: Switch) -> Iterator[subprocess.Popen[str]]:
    """A client with a connection; a line to it closes that."""
    client = switch.spawn(PYTHON, "-c", HOLD, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert client.stdin is not None
    assert client.stdout is not None
    with client.stdin, client.stdout:
        assert client.stdout.readline() == "b'here'\n"
        yield client


@pytest.mark.root
@pytest.mark.program("nginx", "wrk")
def test_under_wrk_nothing_is_lost(switch: Switch) -> None:
    """Three instances are drained, ended and started again, one after the other: every request is answered."""
    instances = {}
    for number in range(3):
        before = set(states(switch))
        process = nginx(switch, number)
        (app,) = set(states(switch)) - before
        instances[app] = process
    wrk = switch.spawn("wrk", "-t", "2", "-c", "20", "-d", "110", "-H", "Connection: close", "http://web/")
    eventually(lambda: switch.rows("connections"))
    for app, process in instances.items():
        said = switch.command("drain", str(app), "--timeout", str(PATIENCE))
        assert said.stdout == f"web (app {app}) is drained\n"
        process.terminate()
        process.wait(PATIENCE)
        before = set(states(switch))
        nginx(switch, 3 + app)
        assert len(set(states(switch)) - before) == 1
    wrk.send_signal(signal.SIGINT)  # it ends, and says what there was
    assert wrk.wait(30) == 0
    said = wrk.log.read_text()  # type: ignore[attr-defined]
    assert "Socket errors" not in said, said
    assert "Non-2xx" not in said, said
    assert int(re.findall(r"(\d+) requests in", said)[0]) > 1000


def test_it_waits_for_the_last_connection_and_new_ones_go_elsewhere(switch: Switch) -> None:
    first = instance(switch, KEEPING)
    with holding(switch) as client:
        second = instance(switch, SERVER, "b")
        drain = subprocess.Popen(
            [*switch.appswitch, "drain", str(first)], env=switch.environment, stdout=subprocess.PIPE, text=True
        )
        eventually(lambda: states(switch) == {first: "draining", second: "up"})
        assert switch.run(PYTHON, "-c", CLIENT, "20").stdout == "b\n" * 20
        assert drain.poll() is None
        assert client.stdin is not None
        client.stdin.write("\n")
        client.stdin.flush()
        assert drain.communicate(timeout=PATIENCE)[0] == f"web (app {first}) is drained\n"


def test_timeout_no_wait_and_undo(switch: Switch) -> None:
    only = instance(switch, KEEPING)
    with holding(switch):
        failed = switch.command("drain", "web", "--timeout", "0.2", check=False)
        assert failed.returncode == 1
        assert "1 connection is left after 0.2 s" in failed.stderr
        assert states(switch) == {only: "draining"}
        assert {row["state"] for row in switch.rows("ps") if row["id"] == only} == {"draining"}
        assert switch.command("drain", "web", "--no-wait").stdout == f"web (app {only}) is draining, 1 left\n"
        refused = switch.run(PYTHON, "-c", CLIENT, "1", check=False)
        assert "Connection refused" in refused.stderr, "where there is no other instance"
        assert switch.command("drain", "web", "--undo").stdout == f"web (app {only}) takes connections again\n"
        assert states(switch) == {only: "up"}
        assert switch.run(PYTHON, "-c", HOLD, input="\n\n").stdout == "b'here'\nclosed\n"


def test_who_waits_hears_of_an_undo(switch: Switch) -> None:
    instance(switch, KEEPING)
    with holding(switch):
        drain = subprocess.Popen(
            [*switch.appswitch, "drain", "web"], env=switch.environment, stderr=subprocess.PIPE, text=True
        )
        eventually(lambda: "draining" in states(switch).values())
        switch.command("drain", "web", "--undo")
        assert "put back into choice" in drain.communicate(timeout=PATIENCE)[1]
        assert drain.returncode == 1


def test_all_instances_of_a_name(switch: Switch) -> None:
    apps = [instance(switch, SERVER, letter) for letter in "ab"]
    said = switch.command("drain", "web.appswitch.local").stdout
    assert said == "".join(f"web (app {app}) is drained\n" for app in apps)
    assert set(states(switch).values()) == {"draining"}
    switch.command("drain", str(apps[0]), "--undo")
    assert Counter(switch.run(PYTHON, "-c", CLIENT, "10").stdout.split()) == {"a": 10}


def test_an_apps_own_connects_go_on(switch: Switch) -> None:
    process = switch.spawn("--name", "web", PYTHON, "-c", WITH_ITSELF)
    eventually(lambda: len(switch.rows("connections")) == 1)
    assert "is drained\n" in switch.command("drain", "web").stdout, "it doesn't wait for them"
    process.send_signal(signal.SIGUSR1)
    eventually(lambda: process.log.read_text() == "b'own'\n")  # type: ignore[attr-defined]


def test_no_such_app(switch: Switch) -> None:
    failed = switch.command("drain", "web", check=False)
    assert failed.returncode == 1
    assert "there is no app 'web'" in failed.stderr
