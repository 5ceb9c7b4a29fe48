"""Clients from outside, through a gateway to programs on another host, which has no route out; a gateway's limits."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness import eventually
from tests.hosts import INTERNET, Host, Namespace, network

pytestmark = [pytest.mark.root, pytest.mark.program("serf", "nginx", "curl")]

GATEWAY, CLIENT, OTHER = INTERNET + "101", INTERNET + "1", INTERNET + "2"
PORT, PROXY_PORT = 8080, 8081

NGINX = """
daemon off; pid {dir}/nginx.pid; error_log {dir}/nginx-error.log; user root; worker_processes 2;
worker_rlimit_nofile 15000;
events {{ worker_connections 12000; }}
http {{
  access_log off; client_header_timeout 600s; client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;
  fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s; client_max_body_size 0;
  server {{ listen 80 backlog=4096; root {dir};
    location = / {{ return 200 "$remote_addr to $server_addr:$server_port\\n"; }} location /files/ {{ }} }}
  server {{ listen 81 proxy_protocol; return 200 "$proxy_protocol_addr by $remote_addr\\n"; }}
}}
"""

# COUNT connections from as many addresses; then what they say is said for each, and a byte of the answer awaited.
MANY = """
import resource, socket, sys

host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
sockets = [socket.create_connection((host, port), 60) for _ in range(count)]
print("connected", flush=True)
sys.stdin.readline()
for each in sockets:
    each.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
print(sum(each.recv(100).startswith(b"HTTP/1.1 200") for each in sockets), flush=True)
"""

# A connection that is kept open after its first answer.
IDLE = """
import socket, sys

end = socket.create_connection((sys.argv[1], int(sys.argv[2])), 20)
end.sendall(b"GET / HTTP/1.1\\r\\nHost: web\\r\\n\\r\\n")
assert end.recv(1000).startswith(b"HTTP/1.1 200")
try:
    end.recv(1)
except ConnectionResetError:
    print("reset")
"""

# Half-open connections: SYNs from addresses that nobody has, whom nobody can answer.
SYNS = """
import socket, struct, sys

gateway, port, network, count = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])

def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF

raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
there = socket.inet_aton(gateway)
for number in range(count):
    here = socket.inet_aton(network + str(10 + number % 80))
    head = struct.pack("!HHIIHHHH", 1024 + number, port, number, 0, 5 << 12 | 2, 65535, 0, 0)
    check = checksum(here + there + struct.pack("!HH", socket.IPPROTO_TCP, len(head)) + head)
    head = head[:16] + struct.pack("!HH", check, 0)
    raw.sendto(struct.pack("!BBHHHBBH4s4s", 69, 0, 40, 0, 0, 64, 6, 0, here, there) + head, (gateway, 0))
"""


class Scene:
    """A gateway and what is outside; nginx on a host inside."""

    def __init__(self, gateway: Host, inner: Host, outside: Namespace) -> None:
        self.gateway, self.inner, self.outside = gateway, inner, outside

    def get(self, *arguments: str, port: int = PORT, source: str = CLIENT) -> str:
        return self.outside.run(
            "curl", "-sS", "-m", "20", "--interface", source, *arguments, f"http://{GATEWAY}:{port}/"
        ).strip()

    def comes_by_lane(self) -> bool:
        """Whether the next client does: it needs no trap handler of the gateway's."""
        self.gateway.server.send_signal(signal.SIGSTOP)
        try:
            command = [*self.outside.enter, "curl", "-sS", "-m", "1", f"http://{GATEWAY}:{PORT}/"]
            return subprocess.run(command, capture_output=True, check=False).returncode == 0
        finally:
            self.gateway.server.send_signal(signal.SIGCONT)

    @contextmanager
    def many(self, count: int) -> Iterator[subprocess.Popen[str]]:
        """So many clients that are connected and say nothing, until a line tells them to."""
        command = [*self.outside.enter, sys.executable, "-c", MANY, GATEWAY, str(PORT), str(count)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout
                assert process.stdout.readline() == "connected\n"
                yield process
            finally:
                process.kill()

    def relays(self) -> list[int]:
        """Those of the gateway; of trap handlers that have gone, too."""
        found = subprocess.run(["pgrep", "-f", "appswitch-relay$"], capture_output=True, text=True, check=False)
        here = netns_of(self.gateway.namespace.pid)
        return [pid for pid in map(int, found.stdout.split()) if netns_of(pid) == here]


@contextmanager
def scene(*flags: str, ports: str = "") -> Iterator[Scene]:
    """flags: of the gateway's `serve`; ports: that it has for connections (ip_local_port_range in ip(7))."""
    with network() as net:
        gateway, inner = net.add("gw"), net.add("inner")
        if ports:
            gateway.namespace.run("sysctl", "-qw", f"net.ipv4.ip_local_port_range={ports}")
        outside = net.internet(gateway)
        gateway.serve("--key-file", str(net.key), "--gateway", "--gateway-bind", GATEWAY, *flags)
        inner.serve("--key-file", str(net.key), "--join", gateway.address)
        for host in (gateway, inner):
            eventually(lambda host=host: len(host.tables()) == 2)
            host.command("nodes", "--wait")
        config = inner.directory / "nginx.conf"
        config.write_text(NGINX.format(dir=inner.directory))
        exposes = ["--expose", f"80:{PORT}", "--expose", f"81:{PROXY_PORT}/proxy"]
        inner.spawn("--name", "web", *exposes, "nginx", "-c", str(config))
        eventually(lambda: len(gateway.rows("services")) == 2)
        yield Scene(gateway, inner, outside)


@pytest.fixture(scope="module")
def common() -> Iterator[Scene]:
    with scene() as made:
        yield made


def netns_of(pid: int) -> Path:
    return Path(f"/proc/{pid}/ns/net").readlink()


def memory(pid: int) -> int:
    """KiB that a process has for itself."""
    status = Path(f"/proc/{pid}/status").read_text()
    return sum(int(size) for size in re.findall(r"RssAnon:\s+(\d+)", status))


# --- what comes through


def test_the_server_sees_the_clients_own_address(common: Scene) -> None:
    assert common.get() == f"{CLIENT} to {GATEWAY}:{PORT}"
    assert common.get(source=OTHER) == f"{OTHER} to {GATEWAY}:{PORT}"


def test_a_server_that_wants_proxy_protocol(common: Scene) -> None:
    assert common.get(port=PROXY_PORT) == f"{CLIENT} by {CLIENT}"


@pytest.mark.program("wrk")
def test_many_at_a_time(common: Scene) -> None:
    for header in ("Connection: keep-alive", "Connection: close"):
        said = common.outside.run("wrk", "-t2", "-c64", "-d2", "-H", header, f"http://{GATEWAY}:{PORT}/")
        assert "Socket errors" not in said
        assert int(re.findall(r"(\d+) requests in", said)[0]) > 100


def test_much_at_a_time(common: Scene) -> None:
    files = common.inner.directory / "files"
    files.mkdir()
    (files / "large").write_bytes(os.urandom(1 << 20) * 64)
    sums = common.outside.run("sh", "-c", f"curl -sS http://{GATEWAY}:{PORT}/files/large | sha256sum").split()
    assert sums[0] == subprocess.run(["sha256sum", files / "large"], capture_output=True, text=True).stdout.split()[0]


def test_connections_go_on_when_the_trap_handler_is_killed() -> None:
    with scene() as made:
        made.get()  # the relay is there
        with made.many(3) as clients:
            eventually(lambda: len(made.gateway.rows("connections")) == 3)
            made.gateway.kill_server()
            assert clients.stdin
            assert clients.stdout
            clients.stdin.write("\n")
            clients.stdin.flush()
            assert clients.stdout.readline() == "3\n"
            clients.wait()
        eventually(lambda: not made.relays())


def test_ten_thousand_idle_connections(common: Scene) -> None:
    count = 10_000
    common.get()
    assert common.gateway.server
    before = memory(common.gateway.server.pid), memory(common.inner.server.pid)
    with common.many(count) as clients:
        assert common.get() == f"{CLIENT} to {GATEWAY}:{PORT}"
        relays = sum(map(memory, common.relays()))
        gateway, inner = memory(common.gateway.server.pid) - before[0], memory(common.inner.server.pid) - before[1]
        print(f"KiB for {count} connections: relay {relays}, serve {gateway} at the gateway, {inner} inside")
        assert relays < 8 * 1024
        assert gateway < 4 * count  # KiB
        assert clients.stdin
        assert clients.stdout
        clients.stdin.write("\n")
        clients.stdin.flush()
        assert clients.stdout.readline() == f"{count}\n"


# --- limits


def test_half_open_connections_are_in_nobodys_way(common: Scene) -> None:
    common.outside.run(sys.executable, "-c", SYNS, GATEWAY, str(PORT), INTERNET, "5000")
    assert common.get() == f"{CLIENT} to {GATEWAY}:{PORT}"


def test_limits_of_a_source_and_of_silence() -> None:
    limits = ["per-source=5", "first-byte=3", "idle=2"]
    with scene(*(word for limit in limits for word in ("--gateway-limit", limit))) as made:
        with made.many(5):
            command = [*made.outside.enter, "curl", "-sS", "-m", "20", f"http://{GATEWAY}:{PORT}/"]
            assert subprocess.run(command, capture_output=True, check=False).returncode in (7, 56)  # reset at once
            assert made.get(source=OTHER) == f"{OTHER} to {GATEWAY}:{PORT}"
            eventually(lambda: subprocess.run(command, capture_output=True, check=False).returncode == 0)
        said = made.outside.run(sys.executable, "-c", IDLE, GATEWAY, str(PORT))
        assert said == "reset\n"
