"""The thread that lets clients in: its limits, and what it does where descriptors are wanting."""

from __future__ import annotations

import os
import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import structlog
import trio

from appswitch.core import limits
from appswitch.core.limits import Limits
from appswitch.edge import gateway_ports
from appswitch.edge.events import Filter
from appswitch.model import Expose, Kind
from tests.edge.gateway_world import PATIENCE, V4, World, accept, connect, is_refused, running, settled
from tests.harness import free_port

Make = Callable[[Limits], World]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    monkeypatch.setattr(limits, "COUNT_EVERY", 0.05)
    monkeypatch.setattr(gateway_ports, "RETRY_EVERY", 0.2)
    with ExitStack() as stack:

        def made(wanted: Limits) -> World:
            world = World(tmp_path, stack, wanted)
            world.ports.express = world.express
            return world

        yield made


async def eventually(holds: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE):
        while not holds():  # noqa: ASYNC110 - another thread makes it so
            await trio.sleep(0.01)


def connects(world: World) -> int:
    """How many the thread has let in."""
    world.express.take()
    return len(world.events.recent(Filter(frozenset({Kind.CONNECT}))))


async def test_so_many_at_a_time(make: Make) -> None:
    world, port = make(Limits(connections=2)), free_port()
    listening = world.serve(world.new_app(Expose(80, port)))
    async with running(world):
        clients = [connect(port) for _ in range(3)]
        ends = [(await accept(listening))[0] for _ in range(2)]
        await trio.sleep(2 * limits.COUNT_EVERY)
        assert connects(world) == 2
        clients[0].close()
        ends[0].close()
        with (await accept(listening))[0] as end:
            assert end.getpeername() == clients[2].getsockname()
        for each in [*clients, *ends]:
            each.close()


async def test_one_more_of_the_same_source_is_reset(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    world, port = make(Limits(per_source=2)), free_port()
    listening = world.serve(world.new_app(Expose(80, port)))
    async with running(world):
        clients = [connect(port) for _ in range(2)]
        ends = [(await accept(listening))[0] for _ in range(2)]
        for _ in range(2):  # Python counts first, and then the thread knows by itself
            with pytest.raises(ConnectionResetError), connect(port) as client:
                await trio.to_thread.run_sync(client.recv, 1)
        with socket.create_connection((str(V4), port), PATIENCE, ("127.0.0.2", 0)) as other:
            with (await accept(listening))[0] as end:
                assert end.getpeername() == other.getsockname()
        clients[0].close()
        ends[0].close()
        await trio.sleep(limits.COUNT_EVERY)
        with connect(port), (await accept(listening))[0]:
            pass
        for each in [*clients, *ends]:
            each.close()


async def test_so_many_in_a_second(make: Make) -> None:
    world, port = make(Limits(rate=20)), free_port()
    listening = world.serve(world.new_app(Expose(80, port)), backlog=99)
    async with running(world):
        start = trio.current_time()
        clients = [connect(port) for _ in range(30)]
        await eventually(lambda: connects(world) == 30)
        assert trio.current_time() - start >= 0.5 - 1e-3
        for each in clients:
            (await accept(listening))[0].close()
            each.close()


async def test_who_comes_alone_takes_one_of_a_second_s_worth(make: Make) -> None:
    world, port = make(Limits(rate=20)), free_port()
    listening = world.serve(world.new_app(Expose(80, port)))
    async with running(world):
        start = time.monotonic()
        for _ in range(12):
            with connect(port), (await accept(listening))[0]:
                await trio.sleep(0.001)  # the thread looks for another one
        left = 0
        while not world.express.gate.turnstile.pause(start):  # as if no time had passed
            left += 1
        assert left >= 7


async def test_what_others_let_in_counts_too(make: Make) -> None:
    """A port that is served singly, and one that isn't, have one limit."""
    world, ports = make(Limits(connections=1)), [free_port(), free_port()]
    proxied = world.serve(world.new_app(Expose(80, ports[0], proxy=True)))
    world.serve(world.new_app(Expose(80, ports[1]), name="db"))
    async with running(world):
        with connect(ports[0]):
            carrier, _ = await trio.to_thread.run_sync(proxied.accept)
            with carrier, connect(ports[1]):
                await trio.sleep(2 * limits.COUNT_EVERY)
                assert connects(world) == 1


@contextmanager
def no_descriptors() -> Iterator[None]:
    """None is left for what is inside."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(int(each.name) for each in Path("/proc/self/fd").iterdir())
    with ExitStack() as stack:
        for _ in range(used):  # what is free below the highest one
            number = os.open("/dev/null", os.O_RDONLY)
            stack.callback(os.close, number)
            if number > used:
                break
        resource.setrlimit(resource.RLIMIT_NOFILE, (number + 1, hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        yield


async def test_without_a_descriptor_clients_wait_and_the_log_says_it_once(make: Make) -> None:
    world, port = make(Limits()), free_port()
    listening = world.serve(world.new_app(Expose(80, port)))
    async with running(world):
        with connect(port), (await accept(listening))[0]:  # so there is a plan
            pass
        await settled()
        clients = [socket.socket() for _ in range(3)]
        with structlog.testing.capture_logs() as logs, no_descriptors():
            for each in clients:
                each.connect((str(V4), port))
            before = os.times()
            await trio.sleep(0.5)
            spent = os.times()
            assert connects(world) == 1
        assert sum(each["event"].startswith("clients can't be accepted") for each in logs) == 1
        assert spent.user + spent.system - before.user - before.system < 0.2  # it doesn't spin
        for each in clients:
            with each, (await accept(listening))[0] as end:
                assert end.getpeername() == each.getsockname()


async def test_a_port_whose_end_finds_no_descriptor_stays_ours(make: Make) -> None:
    world, port = make(Limits()), free_port()
    listening = world.serve(world.new_app(Expose(80, port)))
    async with running(world):
        (before,) = world.records()
        with no_descriptors():
            world.close(listening)
            extra = os.dup(2)  # in the place of the listener's
            await settled()
            assert world.records() == [before]
            os.close(extra)
        await trio.sleep(gateway_ports.RETRY_EVERY + 0.1)
        assert is_refused(port)
        assert world.records() == [before]
