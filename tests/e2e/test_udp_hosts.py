"""UDP between hosts. First, tests of one host, with the servers on another than the clients; then what is only here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import test_udp, test_udp_flow, test_udp_programs
from tests.hosts import Host, Network, network

pytestmark = [pytest.mark.root, pytest.mark.program("serf", "ip", "nsenter")]

for module in (test_udp, test_udp_flow, test_udp_programs):
    globals().update({n: v for n, v in vars(module).items() if n.startswith("test_")})


class Split:
    """As a Switch to tests, but what is started in the background is on another host than what runs to its end."""

    def __init__(self, clients: Host, servers: Host) -> None:
        self.clients, self.servers = clients, servers
        self.directory = clients.directory
        self.spawn, self.run = servers.spawn, clients.run
        self.command, self.rows, self.wait_for = clients.command, clients.rows, clients.wait_for
        self.environment = clients.environment
        self.trap = clients.trap

    def logs(self) -> str:
        return self.clients.logs() + self.servers.logs()


@pytest.fixture
def net() -> Iterator[Network]:
    with network() as made:
        yield made


@pytest.fixture
def switch(net: Network) -> Split:
    return Split(*net.serve("a", "b"))
