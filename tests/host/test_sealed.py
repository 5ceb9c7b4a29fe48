"""Pairs of connected TCP sockets from a namespace where nobody else is."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from appswitch.host import sealed
from appswitch.host.cookies import netns_of
from appswitch.host.sealed import Op
from tests.harness import PATIENCE


@pytest.fixture
def channel() -> Iterator[socket.socket]:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near:
        near.settimeout(PATIENCE)
        with far:
            command = [sys.executable, "-m", "appswitch.host.sealed", str(far.fileno())]
            process = subprocess.Popen(command, pass_fds=[far.fileno()])
        said, fds, _, _ = socket.recv_fds(near, 16, 1)
        assert (said, len(fds)) == (sealed.READY, 1)
        os.close(fds[0])
        yield near
    assert process.wait(PATIENCE) == 0  # it goes with its trap handler


def make(channel: socket.socket, client_version: int, server_version: int) -> sealed.Pair:
    request = bytes([Op.PAIR, client_version, server_version])
    channel.send(request)
    answer, fds, _, _ = socket.recv_fds(channel, 16, 2)
    assert answer == request
    assert channel.recv(16) == sealed.CLOSED
    return socket.socket(fileno=fds[0]), socket.socket(fileno=fds[1])


@pytest.mark.parametrize(("client_version", "server_version"), [(4, 4), (4, 6), (6, 4), (6, 6), (6, sealed.V6ONLY)])
def test_a_pair(channel: socket.socket, client_version: int, server_version: int) -> None:
    for _ in range(3):
        client, server = make(channel, client_version, server_version)
        with client, server:
            assert client.family == sealed.FAMILIES[client_version]
            assert server.family == sealed.FAMILIES[server_version]
            if server_version != 4:
                v6only = server.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
                assert v6only == (server_version == sealed.V6ONLY)
            for one, other in ((client, server), (server, client)):
                assert one.getblocking()
                one.sendall(b"there")
                assert other.recv(9) == b"there"
            client.close()
            assert server.recv(9) == b""


def disconnect(connected: socket.socket) -> None:
    """connect(AF_UNSPEC): what a hostile program would do with a socket of another namespace (connect(2))."""
    assert ctypes.CDLL(None, use_errno=True).connect(connected.fileno(), bytes(16), 16) == 0


def test_nothing_of_ours_is_reached_from_there(channel: socket.socket) -> None:
    client, server = make(channel, 4, 4)
    with client, server, socket.create_server(("127.0.0.1", 0)) as ours:
        assert netns_of(client) == netns_of(server) != netns_of(ours)
        disconnect(client)
        with pytest.raises(ConnectionRefusedError):
            client.connect(ours.getsockname())


def test_a_stranger_in_there_gets_in_nobodys_way(channel: socket.socket) -> None:
    """A program that connects to where the pairs are made isn't taken for a pair's client."""
    strangers = []
    for _ in range(5):
        stranger, server = make(channel, 4, 4)
        with server:
            disconnect(stranger)
            stranger.connect(server.getsockname())
        strangers.append(stranger)
    client, server = make(channel, 4, 4)
    with client, server:
        client.sendall(b"mine")
        assert server.recv(9) == b"mine"
    for stranger in strangers:
        stranger.close()


def test_what_it_doesn_t_know(channel: socket.socket) -> None:
    for request in (b"\x09", b"\0\4\4", *(bytes([op]) for op in Op), *(bytes([op, 9, 4]) for op in Op), bytes(64)):
        channel.send(request)
        answer = channel.recv(16)
        assert len(answer) == sealed.ERROR_SIZE
        assert int.from_bytes(answer, "little") in (errno.EINVAL, errno.EAFNOSUPPORT)
    client, server = make(channel, 4, 4)
    client.close()
    server.close()
