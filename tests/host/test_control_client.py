"""The synchronous client, against a server that is a thread."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appswitch.errors import AppSwitchError
from appswitch.host.control_client import ControlClient
from appswitch.host.paths import control_socket

Serve = Callable[[Callable[[socket.socket], None]], Path]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts a server that does with its one connection what it is told; gives the trap socket's path."""
    threads: list[threading.Thread] = []
    trap = tmp_path / "trap.sock"
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(control_socket(trap)))
    listening.listen()

    def start(talk: Callable[[socket.socket], None]) -> Path:
        def run() -> None:
            connection, _ = listening.accept()
            with connection:
                talk(connection)

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return trap

    yield start
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    listening.close()


def test_calls_and_answers(serve: Serve) -> None:
    seen = []

    def talk(connection: socket.socket) -> None:
        reader = connection.makefile()
        for _ in range(2):
            seen.append(json.loads(reader.readline()))
            connection.sendall(b'{"ok": [1, null]}\n')
        reader.close()

    client = ControlClient(serve(talk))
    assert client.call("resolve", {"name": "wäb"}) == [1, None]
    assert client.call("ps") == [1, None]
    client.close()
    assert seen == [{"call": "resolve", "name": "wäb"}, {"call": "ps"}]


def test_an_answer_in_pieces(serve: Serve) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(100)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        connection.sendall(json.dumps({"ok": "x" * 1000000}).encode() + b"\n")

    client = ControlClient(serve(talk))
    assert client.call("ps") == "x" * 1000000
    client.close()


def test_descriptors_go_along(serve: Serve) -> None:
    got = []

    def talk(connection: socket.socket) -> None:
        data, fds, _, _ = socket.recv_fds(connection, 100000, 4)
        while not data.endswith(b"\n"):
            data += connection.recv(100000)
        got.append((json.loads(data)["call"], [str(Path(f"/proc/self/fd/{fd}").readlink()) for fd in fds]))
        for fd in fds:
            os.close(fd)
        connection.sendall(b'{"ok": null}\n')

    client = ControlClient(serve(talk))
    with Path("/dev/null").open() as one, Path("/dev/zero").open() as two:
        client.call("spawn", {"command": ["x" * 300000]}, [one.fileno(), two.fileno()])
    client.close()
    assert got == [("spawn", ["/dev/null", "/dev/zero"])]


def test_errors_are_raised_with_reason_and_hint(serve: Serve) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(b'{"error": {"reason": "r", "message": "m", "hint": "h"}}\n')

    client = ControlClient(serve(talk))
    with pytest.raises(AppSwitchError) as error:
        client.call("ps")
    client.close()
    assert (error.value.reason, error.value.message, error.value.hint) == ("r", "m", "h")
    assert str(error.value) == "m\nhint: h"


@pytest.mark.parametrize("said", [b"", b'{"ok": '])
def test_a_server_that_goes_is_an_error(serve: Serve, said: bytes) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(said)

    client = ControlClient(serve(talk))
    with pytest.raises(AppSwitchError) as error:
        client.call("ps")
    client.close()
    assert error.value.reason == "gone"
    assert error.value.hint


def test_what_a_server_says_before_it_goes_is_heard(serve: Serve) -> None:
    """It refuses a request without reading all of it."""

    def talk(connection: socket.socket) -> None:
        connection.sendall(b'{"error": {"reason": "r", "message": "m", "hint": ""}}\n')
        connection.shutdown(socket.SHUT_RDWR)

    client = ControlClient(serve(talk))
    with pytest.raises(AppSwitchError) as error:
        client.call("spawn", {"command": ["x" * 1000000]})
    client.close()
    assert error.value.reason == "r"


def test_a_server_that_goes_before_it_reads_is_the_same_error(serve: Serve) -> None:
    """ECONNRESET or EPIPE are no traceback."""
    client = ControlClient(serve(lambda connection: None))
    with pytest.raises(AppSwitchError) as error:
        client.call("spawn", {"command": ["x" * 1000000]})
    client.close()
    assert error.value.reason == "gone"


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ControlClient(tmp_path / "trap.sock")


def test_patience(serve: Serve) -> None:
    over = threading.Event()

    def talk(connection: socket.socket) -> None:
        over.wait(10)

    client = ControlClient(serve(talk))
    client.set_timeout(0.05)
    with pytest.raises(TimeoutError):
        client.call("ps")
    over.set()
    client.close()
