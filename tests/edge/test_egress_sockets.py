"""Which connections to the outside there are: real sockets, to a server of the test's."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, ip_address

import pytest

from appswitch.core.route import Egress
from appswitch.edge import egress as egress_module
from appswitch.edge.diag import Diag
from appswitch.edge.dial import start_egress
from appswitch.edge.egress import EgressSockets
from appswitch.host.namespace import open_diag_socket
from appswitch.model import App, Connection, State

APP = App(id=3, ip=IPv4Address("10.1.1.1"), node="n1")


@pytest.fixture
def egress() -> Iterator[EgressSockets]:
    with open_diag_socket() as diag:
        yield EgressSockets(Diag(diag))


@pytest.mark.parametrize(("ip", "family"), [("127.0.0.1", 4), ("127.0.0.1", 6), ("::1", 6)])
async def test_while_it_lives(egress: EgressSockets, ip: str, family: int) -> None:
    kind = socket.AF_INET if "." in ip else socket.AF_INET6
    with socket.create_server((ip, 0), family=kind) as server, socket.create_connection(server.getsockname()[:2]):
        assert await egress.connections() == []
        dest = ip_address(ip), server.getsockname()[1]
        with start_egress(Egress(*dest), family) as made:
            egress.add(made, APP, dest, "n1")
            source = ip_address(ip), made.getsockname()[1]
            inode = os.fstat(made.fileno()).st_ino
            one = Connection(APP, source, dest, None, None, "n1", State.ESTABLISHED, "tcp", "tcp", (inode, 0))
            assert await egress.connections() == [one]
            copy = made.dup()
        with copy:
            assert await egress.connections() == [one], "somebody else may hold it"
        assert await egress.connections() == []


async def test_only_so_many_are_remembered(egress: EgressSockets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress_module, "REMEMBERED", 2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        dest = IPv4Address("127.0.0.1"), server.getsockname()[1]
        made = [start_egress(Egress(*dest), 4) for _ in range(3)]
        for each in made:
            egress.add(each, APP, dest, "n1")
        listed = {each.inodes[0] for each in await egress.connections()}
        assert listed == {os.fstat(each.fileno()).st_ino for each in made[1:]}
        for each in made:
            each.close()
