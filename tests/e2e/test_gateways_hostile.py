"""Clients outside that mean harm, and a relay that is killed: what ends, and what goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.e2e.test_gateways_relayed import GATEWAY, PORT, PROXY_PORT, Scene, scene
from tests.harness import eventually
from tests.hosts import INTERNET

pytestmark = [pytest.mark.root, pytest.mark.program("serf", "nginx", "curl")]

LIMIT = 12

# A head of PROXY protocol v2 (its specification, 2.2) that names another client, and a request.
SPOOF = """
import socket, struct, sys
head = b"\\r\\n\\r\\n\\0\\r\\nQUIT\\n\\x21\\x11" + struct.pack("!H4s4sHH", 12, bytes([10, 6, 6, 6]), bytes(4), 1, 2)
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 20) as s:
    s.sendall(head + b"GET / HTTP/1.0\\r\\n\\r\\n")
    while more := s.recv(999):
        sys.stdout.write(more.decode())
"""

# Clients that connect and close at once, one after another, from several addresses.
CLOSERS = """
import socket, sys

gateway, port, network, count = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
for number in range(count):
    with socket.socket() as s:
        s.settimeout(20)
        s.bind((network + str(2 + number % 8), 0))
        s.connect((gateway, port))
"""


@pytest.fixture(scope="module")
def common() -> Iterator[Scene]:
    with scene("--gateway-limit", f"connections={LIMIT}") as made:
        yield made


@pytest.mark.parametrize("port", [PORT, PROXY_PORT])
def test_a_client_that_sends_a_head_of_its_own(common: Scene, port: int) -> None:
    """It is data, as all that a client sends: the program has been told already who the client is, or isn't told."""
    said = common.outside.run(sys.executable, "-c", SPOOF, GATEWAY, str(port))
    assert said.startswith("HTTP/1.1 400 ")
    assert "10.6.6.6" not in said


def test_at_the_limit_new_ones_wait_and_the_old_go_on(common: Scene) -> None:
    with common.many(LIMIT) as old:
        late = subprocess.Popen(
            [*common.outside.enter, "curl", "-sS", "-m", "60", f"http://{GATEWAY}:{PORT}/"], stdout=subprocess.PIPE
        )
        with pytest.raises(subprocess.TimeoutExpired):
            late.wait(1.5)  # longer than the gateway takes to count anew
        assert old.stdin
        assert old.stdout
        old.stdin.write("\n")
        old.stdin.flush()
        assert old.stdout.readline() == f"{LIMIT}\n"
    said, _ = late.communicate(timeout=60)
    assert said.endswith(f":{PORT}\n".encode())


def test_a_relay_that_is_killed(common: Scene) -> None:
    """With it end the connections that it has; the next one gets another relay."""
    common.get()
    (relay,) = common.relays()
    with common.many(3) as clients:
        eventually(lambda: len(common.gateway.rows("connections")) >= 3)
        os.kill(relay, signal.SIGKILL)
        assert common.get().endswith(f":{PORT}")
        assert clients.stdin
        assert clients.stdout
        clients.stdin.write("\n")
        clients.stdin.flush()
        assert clients.stdout.readline() in ("0\n", ""), "none of them: at its end, or reset"
    assert relay not in common.relays()


def test_instances_on_two_hosts_take_turns(common: Scene) -> None:
    """One at the gateway, handed its connections, one inside, by the relay."""
    inside, here = common.inner, common.gateway
    bodies = Counter[str]()
    for host, name in ((inside, "inside"), (here, "here")):
        directory = host.directory / name
        directory.mkdir()
        (directory / "index.html").write_text(name)
        flags = ["--name", "both", "--tag", "prefer=any", "--expose", "8000:8082"]
        host.spawn(*flags, sys.executable, "-m", "http.server", "8000", "--directory", str(directory))
    eventually(lambda: len([row for row in here.rows("services") if row["name"] == "both"]) == 2)
    for _ in range(8):
        bodies[common.get(port=8082)] += 1
    assert bodies == {"inside": 4, "here": 4}


def test_masses_that_connect_and_close_at_once() -> None:
    """They close first, so each leaves a port of the gateway's in TIME-WAIT for a minute: these are used anew. It has
    1,200 here; with 28,232 it would be as with twenty times as many clients.
    """
    with scene(ports="40000 41199") as made:
        made.get()
        eventually(made.comes_by_lane)
        made.outside.run(sys.executable, "-c", CLOSERS, GATEWAY, str(PORT), INTERNET, "2500")
        for _ in range(5):
            assert made.get()
