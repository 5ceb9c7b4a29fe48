"""What passes a gateway, to an instance on its own host and to one on another: slow ones at either end, half-closed
connections, much data, databases.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.test_gateways import start_postgres
from tests.e2e.test_gateways_relayed import CLIENT, GATEWAY, Scene, memory, scene
from tests.harness import PATIENCE, eventually
from tests.hosts import Host, Namespace, only

pytestmark = [pytest.mark.root, pytest.mark.program("serf", "nginx", "curl", "socat")]

SIZE = 64 << 20
MOST_UNDER_WAY = (
    40 << 20
)  # bytes; what the kernel's buffers of all sockets on the way take (tcp_rmem, tcp_wmem in tcp(7))

# The server is done first, and listens on.
HALF_CLOSES = """
import hashlib, socket
c, _ = socket.create_server(("", 83)).accept()
c.sendall(b"hello")
c.shutdown(socket.SHUT_WR)
got = hashlib.sha256()
while data := c.recv(1 << 16):
    got.update(data)
print(got.hexdigest(), flush=True)
"""
ANSWERS_LATE = """
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 20)
said = b""
while data := s.recv(99):
    said += data
assert said == b"hello", said
s.sendall(open(sys.argv[3], "rb").read())
"""


class Place:
    """A host that serves clients outside, at ports of the gateway from `first` on."""

    def __init__(self, made: Scene, host: Host, first: int) -> None:
        self.made, self.host, self.first = made, host, first
        self.pipes = ExitStack()

    def spawn(self, port: int, *command: str) -> tuple[subprocess.Popen[str], str]:
        """And where clients find its port, which is this one."""
        name, at = f"app-{self.host.name}-{port}", f"{self.first + port}"
        expose = ["--name", name, "--expose", f"{port}:{at}"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        process = self.host.spawn(*expose, *command, **pipes)
        for each in (process.stdin, process.stdout):
            assert each
            self.pipes.callback(each.close)
        eventually(lambda: only(self.made.gateway.rows("services"), name=name, state="up"))
        return process, at

    def memory(self) -> int:
        """KiB of all that is AppSwitch's at the gateway."""
        return memory(self.made.gateway.server.pid) + sum(map(memory, self.made.relays()))


@pytest.fixture(scope="module")
def common() -> Iterator[Scene]:
    with scene() as made:
        yield made


@pytest.fixture(params=["here", "there"])
def place(request: pytest.FixtureRequest, common: Scene) -> Iterator[Place]:
    host, first = (common.gateway, 21_000) if request.param == "here" else (common.inner, 22_000)
    made = Place(common, host, first)
    with made.pipes:
        yield made


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("large") / "large"
    file.write_bytes(os.urandom(1 << 20) * (SIZE >> 20))
    return file


def sum_of(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def once_blocked(namespace: Namespace) -> int:
    """Bytes that somebody in there has sent by TCP, most of all, when it can send no more."""

    def sent() -> int:
        said = namespace.run("ss", "-Htin", "state", "established")
        return max(map(int, re.findall(r"bytes_sent:(\d+)", said)), default=0)

    seen = [0]
    eventually(lambda: seen.append(sent()) or time.sleep(0.3) or seen[-2] == seen[-1] > 0)  # type: ignore[func-returns-value]
    return seen[-1]


def test_a_client_that_reads_slowly(place: Place, large: Path) -> None:
    """It holds back who sends, and memory isn't where it waits."""
    command = [sys.executable, "-m", "http.server", "80", "--directory", str(large.parent)]
    _, port = place.spawn(80, *command)
    url = f"http://{GATEWAY}:{port}/large"
    slow = f"exec 3<&0; curl -sS {url} </dev/null | {{ read go <&3; sha256sum; }}"
    before = place.memory()
    with subprocess.Popen(
        [*place.made.outside.enter, "sh", "-c", slow], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as client:
        assert once_blocked(place.host.namespace) < MOST_UNDER_WAY
        assert place.memory() - before < 2048  # KiB
        said, _ = client.communicate("go\n", timeout=PATIENCE)
    assert said.split()[0] == sum_of(large)


def test_a_server_that_reads_slowly(place: Place, large: Path) -> None:
    slow = "exec 3<&0; socat -u TCP-LISTEN:81 - </dev/null | { read go <&3; sha256sum; }"
    server, port = place.spawn(81, "sh", "-c", slow)
    before = place.memory()
    command = [*place.made.outside.enter, "socat", "-u", f"OPEN:{large}", f"TCP:{GATEWAY}:{port}"]
    with subprocess.Popen(command) as client:
        assert once_blocked(place.made.outside) < MOST_UNDER_WAY
        assert place.memory() - before < 2048  # KiB
        said, _ = server.communicate("go\n", timeout=PATIENCE)
        assert client.wait(PATIENCE) == 0
    assert said.split()[0] == sum_of(large)


def test_a_client_that_is_done_first_is_answered(place: Place, large: Path) -> None:
    _, port = place.spawn(82, "socat", "TCP-LISTEN:82,fork", "EXEC:sha256sum")  # it answers once it has all
    ask = f"head -c 3000000 {large} | socat -t {PATIENCE} - TCP:{GATEWAY}:{port}"
    expected = hashlib.sha256(large.read_bytes()[:3_000_000]).hexdigest()
    for _ in range(3):
        assert place.made.outside.run("sh", "-c", ask).split()[0] == expected


def test_a_server_that_is_done_first_is_told_all(place: Place, large: Path) -> None:
    server, port = place.spawn(83, sys.executable, "-c", HALF_CLOSES)
    place.made.outside.run(sys.executable, "-c", ANSWERS_LATE, GATEWAY, port, str(large))
    assert server.communicate(timeout=PATIENCE)[0].strip() == sum_of(large)


@pytest.mark.program("psql")
def test_postgres_on_another_host(common: Scene) -> None:
    psql = start_postgres(common.inner, 15432, common.outside)
    assert common.outside.run(*psql, "select inet_client_addr()").strip() == CLIENT
    rows = common.outside.run(*psql, "select repeat(chr(65 + n % 26), 1000) from generate_series(1, 5000) n")
    assert len(rows) == 5000 * 1001
