"""What a gateway lets in of clients that go to its own host (test_gateways_hostile.py and test_gateways_relayed.py have
those that go to another one): by the thread of C, but where a first byte is waited for.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.test_gateways_relayed import CLIENT, GATEWAY, NGINX, OTHER
from tests.e2e.test_gateways_short import asking, go_on
from tests.harness import PATIENCE, eventually
from tests.hosts import INTERNET, INTERNET6, Namespace, network

pytestmark = [pytest.mark.root, pytest.mark.program("nginx", "curl")]

PORT, THIRD = 8080, INTERNET + "3"
ANOTHER6 = "2001:db8:98::"  # /64

SILENT = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 20) as s:
    try:
        s.recv(1)
    except ConnectionResetError:
        print("reset")
"""

# One connection from each of these addresses, which all stay: who of them is answered.
FROM_EACH = """
import socket, sys

def ask(source):
    s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5, (source, 0))
    s.sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    return s, s.recv(99)

kept = []
for source in sys.argv[3:]:
    try:
        kept.append(ask(source))
        print(source)
    except OSError:
        pass
"""


@contextmanager
def limited(*limits: str, at: str = GATEWAY) -> Iterator[Namespace]:
    """What is outside of a gateway with these limits, and an nginx there. at: its address."""
    with network() as net:
        gateway = net.add("gw")
        outside = net.internet(gateway)
        gateway.namespace.run("ip", "-6", "route", "add", ANOTHER6 + "/64", "dev", "eth1")
        flags = [word for limit in limits for word in ("--gateway-limit", limit)]
        gateway.serve("--gateway", "--gateway-bind", at, *flags)
        config = gateway.directory / "nginx.conf"
        config.write_text(NGINX.format(dir=gateway.directory).replace("listen 80 ", "listen [::]:80; listen 80 "))
        gateway.spawn("--name", "web", "--expose", f"80:{PORT}", "nginx", "-c", str(config))
        gateway.wait_for("web:80")
        eventually(lambda: f":{PORT} " in gateway.namespace.run("ss", "-Htln"))
        yield outside


def curl(outside: Namespace, source: str) -> list[str]:
    return [*outside.enter, "curl", "-sS", "-m", "20", "--interface", source, f"http://{GATEWAY}:{PORT}/"]


def test_so_many_at_a_time_and_of_one_source() -> None:
    with limited("connections=12", "per-source=8") as outside, asking(outside, PORT, 8, 5) as (answered, old):
        assert answered == 8
        refused = subprocess.run(curl(outside, CLIENT), capture_output=True, check=False)
        assert refused.returncode in (7, 56)  # reset: before curl sees that it is connected, or after
        with asking(outside, PORT, 4, 5, OTHER) as (answered, _):
            assert answered == 4
            late = subprocess.Popen(curl(outside, THIRD), stdout=subprocess.PIPE, text=True)
            with pytest.raises(subprocess.TimeoutExpired):
                late.wait(1.5)  # longer than the gateway takes to count anew
        assert late.communicate(timeout=PATIENCE)[0] == f"{THIRD} to {GATEWAY}:{PORT}\n", "the others have ended"
        assert go_on(old) == 8


def test_so_many_in_a_second() -> None:
    with limited("rate=20/s") as outside, asking(outside, PORT, 5, 5) as (answered, old):
        assert answered == 5
        begun = time.monotonic()
        with asking(outside, PORT, 60, 20) as (answered, _):
            assert answered == 60
        assert time.monotonic() - begun > (60 - 20) / 20
        assert go_on(old) == 5


def test_who_says_nothing() -> None:
    """The first byte is waited for before any instance hears of the client; after it, silence is the program's."""
    with limited("first-byte=1") as outside, asking(outside, PORT, 5, 5) as (answered, old):
        assert answered == 5
        silent = [*outside.enter, sys.executable, "-c", SILENT, GATEWAY, str(PORT)]
        assert subprocess.run(silent, capture_output=True, text=True, check=True).stdout == "reset\n"
        assert go_on(old) == 5


def test_the_addresses_of_an_ipv6_network_are_one_source() -> None:
    """Who has one has all of its /64."""
    gateway, neighbours, another = INTERNET6 + "101", [f"{INTERNET6}{n}" for n in (21, 22, 23)], ANOTHER6 + "1"
    with limited("per-source=2", at=gateway) as outside:
        for address in (*neighbours, another):
            outside.run("ip", "address", "add", f"{address}/64", "dev", "bridge", "nodad")
        command = [sys.executable, "-c", FROM_EACH, gateway, str(PORT), *neighbours, another]
        assert outside.run(*command).split() == [*neighbours[:2], another]
