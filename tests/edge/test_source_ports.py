"""Ports of connections that have ended are used anew, also those that are in TIME-WAIT still."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from appswitch.edge import source_ports
from appswitch.edge.source_ports import SourcePorts


@pytest.fixture
def ports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SourcePorts:
    """Three at a time."""
    file = tmp_path / "range"
    file.write_text("40000\t40012\n")
    monkeypatch.setattr(source_ports, "RANGE", file)
    return SourcePorts()


def connect(ports: SourcePorts, server: socket.socket) -> tuple[socket.socket, socket.socket, bool]:
    """Both ends, and whether a port was used anew. OSError."""
    client = socket.socket()
    try:
        bound = ports.bind(client)
        client.connect(server.getsockname())
        ports.note(client)
    except OSError:
        client.close()
        raise
    return client, server.accept()[0], bound


def test_those_in_time_wait(ports: SourcePorts) -> None:
    used = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        for _ in range(9):
            client, end, bound = connect(ports, server)
            used.append((client.getsockname()[1], bound))
            with client, end:
                client.shutdown(socket.SHUT_WR)  # it is done first
                assert end.recv(1) == b""
                end.close()
                assert client.recv(1) == b""
    first = [port for port, _ in used[:3]]
    assert used == [(port, turn > 0) for turn in range(3) for port in first]


def test_those_in_use_are_passed_over(ports: SourcePorts) -> None:
    with ExitStack() as stack, socket.create_server(("127.0.0.1", 0)) as server:
        for _ in range(3):
            for each in connect(ports, server)[:2]:
                stack.enter_context(each)
        with pytest.raises(OSError, match=os.strerror(errno.EADDRNOTAVAIL)):
            connect(ports, server)
        ports.skip()
        *ends, bound = connect(ports, server)
        for each in ends:
            stack.enter_context(each)
        assert not bound
