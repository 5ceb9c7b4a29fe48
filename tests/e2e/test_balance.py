"""Several instances of one service, and connects without asking."""

from __future__ import annotations

import sys
from collections import Counter

import pytest

from tests.harness import Switch

PYTHON = sys.executable
SERVER = """
import socket, sys
s = socket.create_server(("", 7000))
while True:
    c, _ = s.accept()
    c.sendall(sys.argv[1].encode())
    c.close()
"""
CLIENT = """
import socket, sys
for _ in range(int(sys.argv[1])):
    print(socket.create_connection(("web", 7000)).recv(9).decode())
"""

RESTLESS = """
import socket, sys
for _ in range(int(sys.argv[1])):
    s = socket.create_connection(("web", 7000))
    try:
        print(s.recv(9).decode() or "lost")
    except ConnectionResetError:
        print("lost")
"""


def test_each_instance_gets_its_share(switch: Switch) -> None:
    for number in "abcd":
        switch.spawn("--name", "web", PYTHON, "-c", SERVER, number)
        switch.wait_for("web:7000")
    while len(switch.rows("services")) < 4:
        pass
    counts = Counter(switch.run(PYTHON, "-c", CLIENT, "1000").stdout.split())
    assert sorted(counts) == list("abcd")
    assert all(abs(count - 250) <= 25 for count in counts.values()), counts
    counts = Counter("".join(switch.run(PYTHON, "-c", CLIENT, "1").stdout.split()) for _ in range(8))
    assert set(counts.values()) == {2}, "short-lived clients are spread, too"


def test_no_client_notices_an_instance_that_goes_and_comes(switch: Switch) -> None:
    """10 x: the client runs throughout, one of two instances is killed and started again."""
    switch.spawn("--name", "web", PYTHON, "-c", SERVER, "a")
    switch.wait_for("web:7000")
    client = switch.spawn(PYTHON, "-c", RESTLESS, "20000")
    for _ in range(10):
        other = switch.spawn("--name", "web", PYTHON, "-c", SERVER, "b")
        while len(switch.rows("services")) < 2:
            pass
        other.kill()
        other.wait()
    assert client.wait(60) == 0, switch.logs()
    counts: Counter[str] = Counter(client.log.read_text().split())  # type: ignore[attr-defined]
    assert set(counts) <= {"a", "b", "lost"}
    assert counts["a"] > 5000
    assert counts["b"] > 0
    assert counts["lost"] < 100, "connections that sat in the queue of an instance when it was killed"


@pytest.mark.program("strace")
def test_the_trap_handler_is_asked_twice_at_most(switch: Switch) -> None:
    """In the steady state a connect is between the client and the kernel; data is, from the first byte."""
    switch.spawn("--name", "web", PYTHON, "-c", SERVER, "a")
    switch.wait_for("web:7000")
    trace = switch.directory / "trace"
    switch.run("strace", "-f", "-o", str(trace), PYTHON, "-c", CLIENT, "100")
    calls = trace.read_text()
    assert calls.count("sendmsg(10") == 2, "requests on the channel, whose descriptor is 1000 or so"
    assert calls.count('recvfrom(3, "a"') == 100
