"""What we have of an app's namespace."""

from __future__ import annotations

import errno
import os
import socket

import pytest
import trio

from appswitch.edge.namespaces import Namespace, adopt
from appswitch.errors import AppSwitchError
from appswitch.host.maker import Maker
from tests.harness import open_descriptors


async def _make(namespace: Namespace, maker: Maker, family: int) -> socket.socket:
    """As the keeper does it, on its signal."""
    made: list[socket.socket] = []

    async def ask() -> None:
        made.append(await namespace.make_socket(family, socket.SOCK_DGRAM))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        maker.answer()
    return made[0]


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
async def test_a_socket_is_made(family: int) -> None:
    maker = Maker()
    namespace = Namespace([maker.far_end])
    with await _make(namespace, maker, family) as made:
        assert (made.family, made.type) == (family, socket.SOCK_DGRAM)
        assert not os.get_inheritable(made.fileno())
    maker.close()


async def test_what_the_keeper_can_not_make_is_an_error() -> None:
    maker = Maker()
    namespace = Namespace([maker.far_end])
    with pytest.RaisesGroup(pytest.RaisesExc(OSError, check=lambda error: error.errno == errno.EAFNOSUPPORT)):
        await _make(namespace, maker, socket.AF_PACKET)
    (await _make(namespace, maker, socket.AF_INET)).close()
    maker.close()


async def test_without_a_keeper() -> None:
    maker = Maker()
    namespace = adopt([maker.far_end.fileno()])
    maker.close()
    with pytest.raises(OSError, match=r"Broken pipe|reset"):
        await namespace.make_socket(socket.AF_INET, socket.SOCK_DGRAM)
    namespace.close()
    with pytest.raises(OSError, match="keeper has gone"):
        await Namespace([]).make_socket(socket.AF_INET, socket.SOCK_DGRAM)


def test_kinds_are_told_apart() -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as diag, socket.socket(type=socket.SOCK_DGRAM) as dns:
        namespace = adopt([dns.fileno(), diag.fileno()])
        assert namespace.diag is not None
        assert [each.type for each in namespace.dns] == [socket.SOCK_DGRAM]
        namespace.close()


def test_what_is_of_no_use_is_refused_and_nothing_is_left_open() -> None:
    before = open_descriptors()
    with socket.socket(socket.AF_UNIX) as stream, socket.socket(type=socket.SOCK_DGRAM) as dns:
        with pytest.raises(AppSwitchError, match="of no use"):
            adopt([dns.fileno(), stream.fileno()])
    reading, writing = os.pipe()
    with socket.socket(type=socket.SOCK_DGRAM) as dns, pytest.raises(AppSwitchError, match="no socket"):
        adopt([dns.fileno(), reading])
    os.close(reading)
    os.close(writing)
    assert open_descriptors() == before
