"""What we have of an app's namespace."""

from __future__ import annotations

import errno
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address

import pytest
import trio
import trio.testing
from attrs import evolve
from trio.testing import MockClock

from appswitch.edge.namespaces import Namespace, adopt
from appswitch.errors import AppSwitchError
from appswitch.host.maker import Maker
from appswitch.host.namespace import enter_new_namespace
from appswitch.model import App, Listener
from tests.harness import open_descriptors

LOCAL = IPv4Address("127.0.0.1")


async def _make(
    namespace: Namespace, maker: Maker, family: int, kind: int = socket.SOCK_DGRAM, protocol: int = 0
) -> socket.socket:
    """As the keeper does it, on its signal."""
    made: list[socket.socket] = []

    async def ask() -> None:
        made.append(await namespace.make_socket(family, kind, protocol))

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


async def test_a_protocol_may_be_said() -> None:
    maker = Maker()
    with await _make(Namespace([maker.far_end]), maker, socket.AF_NETLINK, socket.SOCK_RAW, 4) as made:
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL) == 4
    maker.close()


async def test_a_stopped_keeper_holds_nobody_up_and_is_of_use_again_later(autojump_clock: MockClock) -> None:
    maker = Maker()
    namespace = Namespace([maker.far_end])
    before = open_descriptors()
    for _ in range(2):
        with pytest.raises(TimeoutError):
            await namespace.make_socket(socket.AF_INET6, socket.SOCK_DGRAM)
    maker.answer()
    with await _make(namespace, maker, socket.AF_INET) as made:
        assert made.family == socket.AF_INET
        assert open_descriptors() == before + 1
    maker.close()


async def test_who_receives_in_a_namespace() -> None:
    maker = Maker()
    with socket.socket(type=socket.SOCK_DGRAM) as ours, socket.socket(type=socket.SOCK_DGRAM) as bound:
        for each in (ours, bound):
            each.bind(("127.0.0.1", 0))
        namespace = adopt([ours.fileno(), maker.far_end.fileno()])
        app = App(1, LOCAL, "n1")
        listener = Listener(1, app, 4, LOCAL, bound.getsockname()[1])
        assert not namespace.receives(listener), "nobody has asked yet"

        async with trio.open_nursery() as nursery:
            nursery.start_soon(namespace.receivers)
            await trio.testing.wait_all_tasks_blocked()
            maker.answer()
        receivers = await namespace.receivers()
        found = receivers.find_bound(LOCAL, listener.port)
        assert found is not None
        assert found.local == (LOCAL, listener.port)
        assert namespace.receives(listener)
        assert namespace.receives(evolve(listener, ip=IPv4Address(0)))
        assert receivers.find_bound(LOCAL, ours.getsockname()[1]) is None, "the DNS server doesn't count"
        bound.close()
        assert not namespace.receives(listener)
        namespace.close()
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


class FalseMaker(Maker):
    """Gives a socket of another kind."""

    def __init__(self, given: socket.socket) -> None:
        super().__init__()
        self.given = given

    def _answer(self, request: bytes) -> None:
        socket.send_fds(self._near, [request], [self.given.fileno()])


@pytest.mark.parametrize(
    "kind",
    [(socket.AF_UNIX, socket.SOCK_DGRAM, 0), (socket.AF_NETLINK, socket.SOCK_RAW, 4), (socket.AF_INET, 1, 0)],
)
async def test_what_was_not_asked_for_is_not_taken(kind: tuple[int, int, int]) -> None:
    before = open_descriptors()
    with socket.socket(*kind) as given:
        maker = FalseMaker(given)
        namespace = adopt([maker.far_end.fileno()])
        for family, wanted, protocol in ((socket.AF_INET, socket.SOCK_DGRAM, 0), (socket.AF_NETLINK, 3, 0)):
            with pytest.RaisesGroup(pytest.RaisesExc(OSError, match="something else")):
                await _make(namespace, maker, family, wanted, protocol)
        namespace.close()
        maker.close()
    assert open_descriptors() == before


@pytest.mark.root
async def test_a_socket_of_another_namespace_is_not_taken() -> None:
    def elsewhere() -> socket.socket:
        enter_new_namespace()  # of this thread alone
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    with ThreadPoolExecutor(1) as thread, thread.submit(elsewhere).result() as given:
        maker = FalseMaker(given)
        namespace = Namespace([maker.far_end])
        with pytest.RaisesGroup(pytest.RaisesExc(OSError, match="something else")):
            await _make(namespace, maker, socket.AF_INET)
        maker.close()
