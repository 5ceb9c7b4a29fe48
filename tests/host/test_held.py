"""Connects that come to what somebody else says, in the process that makes them."""

from __future__ import annotations

import ctypes
import errno
import os
import select
import socket

import pytest

from appswitch.host import sealed
from appswitch.host.deaf import deafen
from appswitch.host.held import Held
from appswitch.host.sealed import Op
from tests.harness import PATIENCE
from tests.host.test_sealed import channel

__all__ = ["channel"]  # a fixture


class Maker:
    """The process."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel

    def hold(self, version: int = 4) -> tuple[bytes, socket.socket]:
        return self._ask(bytes([Op.HOLD, version]))

    def meet(self, held: bytes) -> socket.socket:
        return self._ask(bytes([Op.MEET]) + held)[1]

    def fail(self, held: bytes, error: int) -> None:
        request = bytes([Op.FAIL]) + held + error.to_bytes(2, "little")
        self.channel.send(request)
        assert self.channel.recv(64) == request

    def _ask(self, request: bytes) -> tuple[bytes, socket.socket]:
        self.channel.send(request)
        answer, fds, _, _ = socket.recv_fds(self.channel, 64, 1)
        assert self.channel.recv(64) == sealed.CLOSED
        return answer, socket.socket(fileno=fds[0])


@pytest.fixture
def maker(channel: socket.socket) -> Maker:
    return Maker(channel)


def events(client: socket.socket, seconds: float) -> int:
    with select.epoll() as epoll:
        epoll.register(client, select.EPOLLIN | select.EPOLLOUT)
        return next((each for _, each in epoll.poll(seconds)), 0)


@pytest.mark.parametrize("version", [4, 6])
def test_it_connects_until_it_is_met(maker: Maker, version: int) -> None:
    held, client = maker.hold(version)
    with client:
        assert client.family == sealed.FAMILIES[version]
        assert not os.get_blocking(client.fileno())
        assert not events(client, 0.05)
        with pytest.raises(OSError, match="not connected"):
            client.getpeername()
        with maker.meet(held) as other:
            assert events(client, PATIENCE) == select.EPOLLOUT
            assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
            for one, two in ((client, other), (other, client)):
                one.setblocking(True)
                one.sendall(b"there")
                two.setblocking(True)
                assert two.recv(9) == b"there"
            client.close()
            assert other.recv(9) == b""


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (errno.ECONNREFUSED, errno.ECONNREFUSED),
        (errno.EHOSTUNREACH, errno.EHOSTUNREACH),
        (errno.ENETUNREACH, errno.ENETUNREACH),
        (errno.EMFILE, errno.EHOSTUNREACH),
    ],
)
def test_it_fails_as_is_said(maker: Maker, version: int, error: int, seen: int) -> None:
    held, client = maker.hold(version)
    with client:
        maker.fail(held, error)
        assert events(client, PATIENCE) & select.EPOLLERR
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == seen


def test_to_a_time_out_it_comes_by_itself(maker: Maker) -> None:
    held, client = maker.hold()
    with client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_SYNCNT, 1)
        maker.fail(held, errno.ETIMEDOUT)
        assert events(client, PATIENCE) & select.EPOLLERR
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ETIMEDOUT


def test_whoever_has_closed_it_isn_t_met(maker: Maker) -> None:
    held, client = maker.hold()
    client.close()
    with maker.meet(held) as other:
        assert events(other, PATIENCE) & select.EPOLLERR
        assert other.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
    maker.fail(held, errno.ECONNREFUSED)  # nobody is hit


def test_a_holder_that_hears_nothing_holds_up_nobody(maker: Maker) -> None:
    held, client = maker.hold()
    with client:
        deafen(client)
        with maker.meet(held) as other:
            assert not events(other, 0.05)
        again, second = maker.hold()
        with second, maker.meet(again):
            assert events(second, PATIENCE) == select.EPOLLOUT


def test_nobody_takes_the_place_of_the_other_end(maker: Maker) -> None:
    """A hostile holder would listen where others connect to."""
    _, client = maker.hold()
    victim_held, victim = maker.hold()
    with client, victim:
        port = victim_port(maker, victim_held)
        assert ctypes.CDLL(None, use_errno=True).connect(client.fileno(), bytes(16), 16) == 0
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        for ip in ("0.0.0.0", socket.inet_ntoa(Held.unpack(victim_held).dest_ip)):
            with pytest.raises(OSError, match="in use"):
                client.bind((ip, port))


def victim_port(maker: Maker, held: bytes) -> int:
    with maker.meet(held) as other:
        port: int = other.getsockname()[1]
        return port


def test_what_isn_t_one() -> None:
    for packed in (b"", bytes(13), bytes(15)):
        with pytest.raises(ValueError, match="unpack"):
            Held.unpack(packed)
    held = Held(bytes(4), 5, bytes(4), 6)
    assert Held.unpack(held.pack()) == held
