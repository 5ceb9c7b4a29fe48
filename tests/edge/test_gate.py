"""The gate of a gateway: real connections, and the clock where it matters a virtual one."""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import trio
import trio.testing

from appswitch.core import limits
from appswitch.core.limits import Limits
from appswitch.edge.diag import Diag
from appswitch.edge.gate import Gate
from appswitch.host import namespace

PATIENCE = 10.0


class Door:
    """A listening socket, and clients that come to it."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        self.listening = stack.enter_context(socket.create_server(("0.0.0.0", 0), backlog=100))
        self.listening.setblocking(False)
        self.port = self.listening.getsockname()[1]
        self.diag = Diag(stack.enter_context(namespace.open_diag_socket()))

    def gate(self, wanted: Limits) -> Gate:
        return Gate(wanted, self.diag, lambda: {self.port}, trio.current_time)

    def come(self, address: str = "127.0.0.1") -> socket.socket:
        client = socket.create_connection((address, self.port), source_address=(address, 0), timeout=PATIENCE)
        return self.stack.enter_context(client)

    async def admit(self, gate: Gate) -> socket.socket:
        with trio.fail_after(PATIENCE):
            return self.stack.enter_context(await gate.accept(self.listening))

    def is_at_the_door(self) -> bool:
        return bool(select.select([self.listening], [], [], 0)[0])


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    monkeypatch.setattr(limits, "COUNT_EVERY", 0.01)
    with ExitStack() as stack:
        yield Door(stack)


async def test_without_limits(door: Door) -> None:
    gate = door.gate(Limits())
    for _ in range(3):
        client = door.come()
        accepted = await door.admit(gate)
        assert accepted.getpeername() == client.getsockname()
        assert not accepted.getblocking()
        assert await gate.has_said_something(accepted)


async def test_at_the_limit_who_comes_waits_and_who_is_there_goes_on(door: Door) -> None:
    gate = door.gate(Limits(connections=2))
    first, second, third = door.come(), door.come(), door.come()
    ends = [await door.admit(gate) for _ in range(2)]
    async with trio.open_nursery() as nursery:
        admitted = trio.Event()

        async def admit() -> None:
            await door.admit(gate)
            admitted.set()

        nursery.start_soon(admit)
        await trio.sleep(0.1)
        assert not admitted.is_set()
        assert door.is_at_the_door()
        second.sendall(b"still here")
        assert ends[1].recv(10) == b"still here"
        ends[0].close()
        first.close()
        with trio.fail_after(PATIENCE):
            await admitted.wait()
    third.sendall(b"x")


async def test_connections_of_other_ports_dont_count(door: Door) -> None:
    other = Door(door.stack)
    gate = door.gate(Limits(connections=1))
    other.come()
    await other.admit(other.gate(Limits()))
    door.come()
    accepted = await door.admit(gate)
    accepted.close()
    door.come()
    await door.admit(gate)


async def test_one_more_of_the_same_source_is_reset(door: Door) -> None:
    gate = door.gate(Limits(per_source=2))
    for _ in range(2):
        door.come()
        await door.admit(gate)
    too_many, other = door.come(), door.come("127.0.0.2")
    accepted = await door.admit(gate)
    assert accepted.getpeername() == other.getsockname()
    with pytest.raises(ConnectionResetError):
        too_many.recv(1)


async def test_a_source_whose_connections_have_ended_may_come_again(door: Door) -> None:
    gate = door.gate(Limits(per_source=1))
    for _ in range(3):
        client = door.come()
        accepted = await door.admit(gate)
        accepted.close()
        client.close()
        await trio.sleep(limits.COUNT_EVERY)


async def test_so_many_in_a_second(door: Door, autojump_clock: trio.testing.MockClock) -> None:
    gate, start = door.gate(Limits(rate=10)), trio.current_time()
    for _ in range(25):
        door.come()
        await door.admit(gate)
    assert trio.current_time() - start == pytest.approx(1.5)


async def test_a_client_that_says_nothing(door: Door, autojump_clock: trio.testing.MockClock) -> None:
    gate = door.gate(Limits(first_byte=5.0))
    door.come()
    silent = await door.admit(gate)
    start = trio.current_time()
    assert not await gate.has_said_something(silent)
    assert trio.current_time() - start == pytest.approx(5.0)


async def test_clients_that_say_something_or_have_ended(door: Door) -> None:
    gate = door.gate(Limits(first_byte=60.0))
    door.come().sendall(b"GET")
    door.come().close()
    with trio.fail_after(PATIENCE):
        for _ in range(2):
            assert await gate.has_said_something(await door.admit(gate))


async def test_without_a_descriptor_left_it_waits(door: Door, autojump_clock: trio.testing.MockClock) -> None:
    class Short(socket.socket):
        tries = 0

        def accept(self) -> tuple[socket.socket, object]:
            self.tries += 1
            if self.tries < 4:
                raise OSError((errno.EMFILE, errno.ENFILE, errno.ECONNABORTED)[self.tries - 1], "none")
            return super().accept()

    door.come()
    with Short(fileno=os.dup(door.listening.fileno())) as listening, await Gate(Limits()).accept(listening):
        assert listening.tries == 4
