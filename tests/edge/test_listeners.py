"""Unix sockets in the place of listeners: they live exactly as long as the app's descriptors of them."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from appswitch.edge.listeners import ListenerSockets
from appswitch.model import App, Listener
from tests.harness import open_descriptors

APP = App(id=1, ip=IPv4Address("10.1.1.1"), node="n1")


def listener(number: int) -> Listener:
    return Listener(id=number, app=APP, family=4, ip=APP.ip, port=80)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "state" / "listeners"


@pytest.fixture
def sockets(directory: Path) -> Iterator[ListenerSockets]:
    made = ListenerSockets(directory)
    yield made
    made.close()


def test_no_one_else_gets_in_and_nothing_is_left_there(directory: Path, sockets: ListenerSockets) -> None:
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    with sockets.open(listener(1)):
        assert list(sockets.files()) == [each.name for each in directory.iterdir()] != []
    sockets.forget(1)
    assert list(directory.iterdir()) == []


def test_a_directory_of_an_earlier_server_is_taken_over(directory: Path) -> None:
    directory.mkdir(parents=True, mode=0o777)
    directory.chmod(0o777)
    earlier = ListenerSockets(directory, salt=5)
    with earlier.open(listener(1)) as bound:
        bound.listen()
        earlier.close()
        sockets = ListenerSockets(directory, salt=5)
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        (file,) = sockets.files()
        sockets.adopt(1, file)
        assert sockets.alive(1)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(sockets.path(1))
    assert not sockets.alive(1)
    sockets.forget(1)
    assert list(directory.iterdir()) == []
    sockets.close()


def test_a_file_that_isn_t_there_is_not_adopted(sockets: ListenerSockets) -> None:
    with pytest.raises(FileNotFoundError):
        sockets.adopt(1, "as.00")
    sockets.discard("as.00")
    with pytest.raises(KeyError):
        sockets.handle(1)


def test_it_takes_connections_once_it_listens(sockets: ListenerSockets) -> None:
    with sockets.open(listener(1)) as bound, socket.socket(socket.AF_UNIX) as client:
        with pytest.raises(ConnectionRefusedError):
            client.connect(sockets.path(1))
        bound.listen()
        client.connect(sockets.path(1))
        accepted, _ = bound.accept()
        accepted.close()


def test_it_lives_as_long_as_somebody_has_it_open(sockets: ListenerSockets) -> None:
    bound = sockets.open(listener(1))
    assert sockets.alive(1)
    copy = os.dup(bound.fileno())
    bound.close()
    assert sockets.alive(1)
    os.close(copy)
    assert not sockets.alive(1)


def test_it_lives_while_it_is_on_its_way_to_the_app(sockets: ListenerSockets) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with sockets.open(listener(1)) as bound:
            socket.send_fds(ours, [b"x"], [bound.fileno()])
        assert sockets.alive(1)
        _, (fd,), _, _ = socket.recv_fds(theirs, 1, 1)
        assert sockets.alive(1)
        os.close(fd)
        assert not sockets.alive(1)


def test_looking_is_not_noticed(sockets: ListenerSockets) -> None:
    with sockets.open(listener(1)) as bound:
        bound.listen()
        bound.setblocking(False)
        for _ in range(3):
            assert sockets.alive(1)
        with pytest.raises(BlockingIOError):
            bound.accept()


def test_several_are_told_apart(sockets: ListenerSockets) -> None:
    one, two = sockets.open(listener(1)), sockets.open(listener(2))
    one.close()
    assert (sockets.alive(1), sockets.alive(2)) == (False, True)
    sockets.forget(1)
    assert sockets.alive(2)
    two.close()


def test_no_descriptor_is_left_over(directory: Path) -> None:
    before = open_descriptors()
    sockets = ListenerSockets(directory)
    for number in range(10):
        sockets.open(listener(number)).close()
    sockets.forget(3)
    sockets.close()
    assert open_descriptors() == before


def test_a_failure_leaves_nothing_behind(
    sockets: ListenerSockets, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def refuse(path: str, flags: int, dir_fd: int) -> int:
        raise OSError(24, "Too many open files")

    before = open_descriptors()
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OSError, match=r"Too many"):
        sockets.open(listener(1))
    monkeypatch.setattr(os, "open", real)
    assert list(directory.iterdir()) == []
    assert open_descriptors() == before
