"""What the kernel says of Unix sockets: real ones, asked and read."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appswitch.host.namespace import open_diag_socket
from appswitch.wire import netlink, unix_diag
from appswitch.wire.unix_diag import UnixSocket


def dump(request: Callable[[int], bytes] = unix_diag.connected_sockets) -> list[UnixSocket]:
    with open_diag_socket() as diag:
        diag.send(request(1))
        found: list[UnixSocket | None] = []
        while True:
            for message in netlink.messages(diag.recv(65536)):
                if message.kind == netlink.DONE:
                    return [each for each in found if each is not None]
                assert message.kind == unix_diag.SOCK_DIAG_BY_FAMILY
                found.append(unix_diag.decode(message.body))


def inode(any_socket: socket.socket) -> int:
    return os.fstat(any_socket.fileno()).st_ino


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "listening"))
        made.listen()
        yield made


@pytest.fixture
def client(listening: socket.socket) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(b"\0test of unix_diag %d" % os.getpid())
        made.connect(listening.getsockname())
        yield made


def test_both_ends_of_a_connection(listening: socket.socket, client: socket.socket) -> None:
    accepted, _ = listening.accept()
    with accepted:
        found = {each.inode: each for each in dump()}
        assert found[inode(client)] == UnixSocket(
            inode(client), client.getsockname(), inode(accepted), None, (), os.geteuid(), False
        )
        server = found[inode(accepted)]
        assert server.name.rstrip(b"\0") == listening.getsockname().encode()
        (listener,) = [each for each in dump(unix_diag.listening_sockets) if each.inode == inode(listening)]
        assert (server.peer, server.file) == (inode(client), listener.file)
        assert listener.file != (0, 0)
        assert inode(listening) not in found


def test_bound_and_listening(listening: socket.socket, client: socket.socket, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "bound"))
        found = {each.inode: each for each in dump(unix_diag.bound_sockets)}
        assert (found[inode(bound)].listens, found[inode(listening)].listens) == (False, True)
        file = found[inode(bound)].file
        assert file is not None
        assert file[1] == (tmp_path / "bound").stat().st_ino & 0xFFFFFFFF
        assert inode(client) not in found


def test_one_that_waits_in_the_queue(listening: socket.socket, client: socket.socket) -> None:
    found = {each.inode: each for each in dump()}
    assert (found[inode(client)].peer, found[inode(client)].shut) == (0, False)
    listeners = {each.inode: each for each in dump(unix_diag.listening_sockets)}
    assert listeners[inode(listening)].waiting == (inode(client),)


def test_the_servers_end_is_closed(listening: socket.socket, client: socket.socket) -> None:
    listening.accept()[0].close()
    (left,) = [each for each in dump() if each.inode == inode(client)]
    assert (left.peer, left.shut) == (0, True)


def test_the_clients_end_is_closed(listening: socket.socket, client: socket.socket) -> None:
    accepted, _ = listening.accept()
    number = inode(client)
    client.close()
    with accepted:
        found = {each.inode: each for each in dump()}
        assert number not in found
        assert (found[inode(accepted)].peer, found[inode(accepted)].shut) == (0, True)


def test_a_cut_answer() -> None:
    with pytest.raises(ValueError, match="an answer of 3 bytes"):
        unix_diag.decode(b"abc")
