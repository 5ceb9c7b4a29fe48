"""Asking the kernel for the sockets of a namespace."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

import pytest
import trio

from appswitch.edge import diag as diag_module
from appswitch.edge.diag import Diag
from appswitch.host.namespace import open_diag_socket
from appswitch.wire import netlink, unix_diag


@pytest.fixture
def diag() -> Iterator[Diag]:
    with open_diag_socket() as opened:
        yield Diag(opened)


async def test_many_sockets_come_in_pieces_and_others_have_their_turn(diag: Diag) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(b"\0test of diag")
        listening.listen(512)
        made = [socket.socket(socket.AF_UNIX) for _ in range(512)]
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await trio.lowlevel.checkpoint()
                turns += 1

        try:
            for each in made:
                each.connect(b"\0test of diag")
            accepted = [listening.accept()[0] for _ in made]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(count)
                found = await diag.dump(unix_diag.connected_sockets, unix_diag.decode)
                nursery.cancel_scope.cancel()
        finally:
            for each in made:
                each.close()
        assert len([each for each in found if each.name == b"\0test of diag"]) == len(accepted)
        assert turns > 5
        for each in accepted:
            each.close()


async def test_a_long_queue_on_the_first_request(diag: Diag) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(b"\0test of a long queue")
        listening.listen(4096)
        made = [socket.socket(socket.AF_UNIX) for _ in range(3000)]
        try:
            for each in made:
                each.connect(b"\0test of a long queue")
            found = await diag.dump(unix_diag.listening_sockets, unix_diag.decode)
        finally:
            for each in made:
                each.close()
    (queue,) = [each for each in found if each.name == b"\0test of a long queue"]
    assert len(queue.waiting) == 3000


async def test_two_at_once_wait_for_each_other(diag: Diag) -> None:
    async def ask() -> None:
        await diag.dump(unix_diag.listening_sockets, unix_diag.decode)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask)


async def test_one_that_is_cancelled_leaves_nothing_behind(diag: Diag) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await diag.dump(unix_diag.listening_sockets, unix_diag.decode)
    await diag.dump(unix_diag.listening_sockets, unix_diag.decode)


async def test_refused(diag: Diag) -> None:
    with pytest.raises(OSError, match="sock_diag") as caught:
        await diag.dump(lambda number: netlink.dump_request(9999, number, b""), unix_diag.decode)
    assert caught.value.errno == errno.EINVAL


async def test_what_is_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diag_module, "PATIENCE", 0.05)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        with pytest.raises(OSError, match="doesn't answer"):
            await Diag(ours).dump(unix_diag.connected_sockets, unix_diag.decode)
        theirs.send(bytes(16))
        with pytest.raises(OSError, match="a netlink message of 0 bytes"):
            await Diag(ours).dump(unix_diag.connected_sockets, unix_diag.decode)
