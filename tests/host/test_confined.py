"""Sockets that are good for one connection: that one works, and whatever their holder tries then doesn't."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from appswitch.host import confined
from appswitch.host.confined import confine_client, confine_listener
from appswitch.host.deaf import RETURN, SO_DETACH_FILTER, attach_filter, deafen, undeafen
from tests.host.test_sealed import disconnect

PATIENCE = 10.0
SHORT = 0.2  # seconds without an answer; a connect to loopback takes none
ALL_PASS = (RETURN, 0, 0, 0xFFFFFFFF)
FAMILIES = {
    "v4": (socket.AF_INET, "127.0.0.1"),
    "v6": (socket.AF_INET6, "::1"),
    "mapped": (socket.AF_INET6, "127.0.0.1"),
}


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


@pytest.fixture(params=FAMILIES)
def place(request: pytest.FixtureRequest) -> tuple[int, str]:
    """A client's family, and where servers are."""
    return FAMILIES[request.param]


@pytest.fixture(params=["by number", "by ends"])
def by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How a client's answer is known: as root, and as others."""

    def forbidden(_: socket.socket) -> int:
        raise PermissionError

    if request.param == "by ends":
        monkeypatch.setattr(confined, "_next_number", forbidden)
    elif os.geteuid():
        pytest.skip("needs root")
    return str(request.param)


def server(stack: ExitStack, ip: str) -> socket.socket:
    made = stack.enter_context(socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET))
    made.bind((ip, 0))
    made.settimeout(PATIENCE)
    return made


def address(family: int, at: socket.socket) -> tuple[str, int]:
    ip, port = at.getsockname()[:2]
    return ("::ffff:" + ip if family == socket.AF_INET6 and ":" not in ip else ip), port


def connect(stack: ExitStack, family: int, to: socket.socket, own_port: int = 0) -> socket.socket:
    """A client as edge/dial.py makes it."""
    client = stack.enter_context(socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
    client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    client.bind(("", own_port))
    with suppress(BlockingIOError):
        client.connect(address(family, to))
    confine_client(client, address(family, to))
    client.settimeout(PATIENCE)
    return client


def talk(one: socket.socket, other: socket.socket) -> None:
    for here, there in ((one, other), (other, one)):
        here.settimeout(PATIENCE)
        here.sendall(b"hello")
        assert there.recv(9) == b"hello"


def reaches(held: socket.socket, family: int, to: socket.socket, own_port: int = 0) -> bool:
    """Whether its holder, who starts afresh, gets a connection to there."""
    disconnect(held)
    if own_port:
        held.bind(("", own_port))
    held.settimeout(SHORT)
    try:
        held.connect(address(family, to))
    except TimeoutError:
        return False
    return True


def cannot_undo(held: socket.socket) -> None:
    for option in (SO_DETACH_FILTER, confined.SO_LOCK_FILTER):
        with pytest.raises(PermissionError):
            held.setsockopt(socket.SOL_SOCKET, option, 0)
    with pytest.raises(PermissionError):
        attach_filter(held, [ALL_PASS])


@pytest.mark.usefixtures("by")
def test_a_client_reaches_nothing_else(stack: ExitStack, place: tuple[int, str]) -> None:
    family, ip = place
    wanted, other = server(stack, ip), server(stack, ip)
    for each in (wanted, other):
        each.listen()
    client = connect(stack, family, wanted)
    end = stack.enter_context(wanted.accept()[0])
    talk(client, end)
    cannot_undo(client)
    assert not reaches(client, family, other)
    assert not reaches(client, family, wanted)


def test_not_even_the_same_place_again(stack: ExitStack, by: str, place: tuple[int, str]) -> None:
    """From the same port: as root alone. A policy may have ended the connection since."""
    family, ip = place
    wanted = server(stack, ip)
    wanted.listen()
    client = connect(stack, family, wanted)
    port = client.getsockname()[1]
    end, _ = wanted.accept()
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, *bytes(7)]))
    end.close()
    assert reaches(client, family, wanted, port) == (by == "by ends")


@pytest.mark.usefixtures("by")
def test_a_client_whose_server_answers_late(stack: ExitStack, place: tuple[int, str]) -> None:
    """Its SYN is sent again; data meanwhile waits."""
    family, ip = place
    wanted = server(stack, ip)
    deafen(wanted)
    wanted.listen()
    client = connect(stack, family, wanted)
    undeafen(wanted)
    end = stack.enter_context(wanted.accept()[0])
    talk(client, end)


@pytest.mark.usefixtures("by")
def test_a_client_that_is_refused(stack: ExitStack, place: tuple[int, str]) -> None:
    family, ip = place
    nobody = server(stack, ip)
    client = connect(stack, family, nobody)
    assert client.connect_ex(address(family, nobody)) in (errno.ECONNREFUSED, errno.ECONNABORTED)


@pytest.mark.usefixtures("by")
def test_a_client_doesn_t_listen(stack: ExitStack) -> None:
    wanted = server(stack, "127.0.0.1")
    wanted.listen()
    client = connect(stack, socket.AF_INET, wanted)
    stack.enter_context(wanted.accept()[0])
    disconnect(client)
    assert not is_reached(client)


def is_reached(held: socket.socket) -> bool:
    """Whether its holder gets clients."""
    held.bind(("127.0.0.1", 0))
    held.listen()
    with socket.socket() as outsider:
        outsider.settimeout(SHORT)
        try:
            outsider.connect(held.getsockname())
        except TimeoutError:
            return False
    return True


@pytest.mark.parametrize("then", ["connects", "listens"])
def test_what_a_listener_accepts(stack: ExitStack, place: tuple[int, str], then: str) -> None:
    family, ip = place
    wanted, other = server(stack, ip), server(stack, ip)
    confine_listener(wanted)
    for each in (wanted, other):
        each.listen()
    for _ in range(2):  # it goes on
        client = stack.enter_context(socket.create_connection(address(family, wanted), PATIENCE))
        held = stack.enter_context(wanted.accept()[0])
        talk(client, held)
        cannot_undo(held)
        if then == "connects":
            assert not reaches(held, held.family, other)
        elif ip == "127.0.0.1":
            disconnect(held)
            assert not is_reached(held)
