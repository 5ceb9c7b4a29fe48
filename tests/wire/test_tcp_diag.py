"""What the kernel says of TCP sockets: real ones, asked and read."""

from __future__ import annotations

import os
import socket

import pytest

from appswitch.host.cookies import cookie_of
from appswitch.host.namespace import open_diag_socket
from appswitch.wire import netlink, tcp_diag
from appswitch.wire.tcp_diag import TcpSocket


def dump(family: int) -> list[TcpSocket]:
    with open_diag_socket() as diag:
        diag.send(tcp_diag.connected_sockets(1, family))
        found: list[TcpSocket] = []
        while True:
            for message in netlink.messages(diag.recv(65536)):
                if message.kind == netlink.DONE:
                    return found
                assert message.kind == tcp_diag.SOCK_DIAG_BY_FAMILY
                found.append(tcp_diag.decode(message.body))


@pytest.mark.parametrize(("family", "ip"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_both_ends_of_a_connection_and_no_listener(family: int, ip: str) -> None:
    with socket.create_server((ip, 0), family=family) as listener, socket.socket(family) as client:
        client.connect(listener.getsockname())
        server, _ = listener.accept()
        with server:
            found = {each.cookie: each.inode for each in dump(family) if each.state == tcp_diag.ESTABLISHED}
            assert found[cookie_of(client)] == os.fstat(client.fileno()).st_ino
            assert found[cookie_of(server)] == os.fstat(server.fileno()).st_ino
            assert cookie_of(listener) not in found
            cookie = cookie_of(client)
            client.close()  # the connection goes on without it: FIN-WAIT-2
            assert [each.inode for each in dump(family) if each.cookie == cookie] == [0]


def test_an_answer_that_is_cut() -> None:
    with pytest.raises(ValueError, match="71 bytes"):
        tcp_diag.decode(bytes(71))
