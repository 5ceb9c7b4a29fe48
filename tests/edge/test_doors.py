"""A relay's doors: the program itself, told by us what there is; and we are the other host, too."""

from __future__ import annotations

import errno
import math
import select
import socket
import subprocess
import threading
import unittest.mock
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import trio
from appswitch._lanes import ffi, lib
from trio.testing import wait_all_tasks_blocked

from appswitch.edge.arrivals import RESET
from appswitch.edge.doors import Doors, Lane, keep_urgent
from appswitch.edge.relay import Relay
from appswitch.model import Exposure
from appswitch.wire import lanes, socknames
from appswitch.wire.lanes import Report
from tests.edge.test_relay import receive
from tests.harness import eventually
from tests.wire.test_lanes import refusal

PATIENCE = 20.0
KEY, LANE, PLACE, DOOR = b"k" * 16, 12345, 9, 3
SIZE = ffi.sizeof("struct as_lane_record")


class World:
    """One door, and a lane to a peer port of ours."""

    def __init__(self, stack: ExitStack, relay: Relay, channel: socket.socket) -> None:
        self.stack, self.relay, self.channel = stack, relay, channel
        channel.settimeout(PATIENCE)
        self.peer = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.peer.settimeout(PATIENCE)
        self.port = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.port.settimeout(PATIENCE)
        self.say(lanes.encode_lane(PLACE, LANE, KEY, (ip_address("127.0.0.1"), self.peer.getsockname()[1])))

    def open(self, idle: float | None = None) -> None:
        socket.send_fds(self.channel, [lanes.encode_door(DOOR, [PLACE], idle)], [self.port.fileno()])

    def say(self, order: bytes) -> None:
        self.channel.send(order)

    def hear(self) -> tuple[Report, list[socket.socket]]:
        data, fds, _, _ = socket.recv_fds(self.channel, lanes.MOST_REPORT, 1)
        ends = [self.stack.enter_context(socket.socket(fileno=fd)) for fd in fds]
        for each in ends:
            each.settimeout(PATIENCE)
        return lanes.decode_report(data), ends

    def client(self, data: bytes = b"") -> socket.socket:
        end = self.stack.enter_context(socket.create_connection(self.port.getsockname(), PATIENCE))
        end.sendall(data)
        return end

    def arrival(self) -> tuple[bytes, socket.socket]:
        """Its record, and the connection."""
        end = self.stack.enter_context(self.peer.accept()[0])
        end.settimeout(PATIENCE)
        return receive(end, SIZE), end


def number_of(record: bytes) -> int:
    read = ffi.from_buffer("struct as_lane_record *", record)
    assert lib.is_sealed(read, KEY)
    return int.from_bytes(bytes(ffi.buffer(ffi.addressof(read, "number"))))


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


@pytest.fixture
async def world(stack: ExitStack) -> AsyncIterator[World]:
    relay = Relay()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with trio.fail_after(PATIENCE):
        await relay.lend_doors(theirs)
    yield World(stack, relay, stack.enter_context(ours))
    relay.close()


async def test_a_client_and_a_server_that_take_turns(world: World) -> None:
    world.open()
    client = world.client(b"question")
    record, server = world.arrival()
    assert number_of(record) == 1
    assert receive(server, 8) == b"question"
    client.sendall(b" and more")
    assert receive(server, 9) == b" and more"
    server.sendall(b"answer")
    assert receive(client, 6) == b"answer"
    client.sendall(b"once more")
    assert receive(server, 9) == b"once more"
    client.shutdown(socket.SHUT_WR)
    assert server.recv(1) == b""
    server.close()
    assert client.recv(1) == b""
    report, _ = world.hear()
    ((_, lane, name),) = lanes.read_entries(report.entries)
    read = socknames.read_client_name(name)
    assert lane == LANE
    assert read is not None
    assert (str(read.source[0]), read.source[1]) == client.getsockname()
    assert (str(read.dest[0]), read.dest[1]) == world.port.getsockname()


async def test_each_connection_has_a_number_of_its_own(world: World) -> None:
    world.open()
    found = set()
    for _ in range(20):
        world.client()
        found.add(number_of(world.arrival()[0]))
    assert found == set(range(1, 21))


async def test_who_is_refused_comes_back_with_all_that_was_said(world: World) -> None:
    world.open()
    client = world.client(b"question")
    record, server = world.arrival()
    assert receive(server, 8) == b"question"
    server.sendall(refusal(record, KEY))
    server.close()
    while not (told := world.hear())[1]:
        pass
    report, (back,) = told
    assert (report.door, report.lane, report.error) == (DOOR, PLACE, errno.ECONNREFUSED)
    assert receive(back, 8) == b"question"
    back.sendall(b"answer")
    assert receive(client, 6) == b"answer"


@pytest.mark.program("strace")
async def test_who_is_refused_while_the_relay_is_busy_comes_back_as_well(world: World) -> None:
    """The refusal, the reset that follows since words went with the record, and that it stands: all at one look."""
    pid = (await world.relay.tally()).pid
    client = world.client(b"question")
    strace = ["strace", "-qq", "-o", "/dev/null", "-p", str(pid), "-e", "inject=sendto:delay_exit=100000"]
    with subprocess.Popen(strace) as delays:  # noqa: ASYNC220 - it only starts it
        eventually(lambda: "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text())
        world.open()
        record, server = world.arrival()
        server.sendall(refusal(record, KEY))
        server.close()
        report, (back,) = world.hear()
        delays.terminate()
    assert report.error == errno.ECONNREFUSED
    assert back.getpeername() == client.getsockname()
    assert receive(back, 8) == b"question"


async def test_who_finds_nobody_comes_back(world: World) -> None:
    world.peer.close()
    world.open()
    client = world.client(b"question")
    report, (back,) = world.hear()
    assert (report.door, report.lane) == (DOOR, PLACE)
    assert report.error not in (0, errno.ECONNREFUSED)
    assert receive(back, 8) == b"question"
    client.close()


async def test_what_looks_like_a_refusal_but_is_none_is_the_servers(world: World) -> None:
    world.open()
    client = world.client()
    record, server = world.arrival()
    server.sendall(refusal(record, KEY)[::-1])
    assert receive(client, 16) == refusal(record, KEY)[::-1]
    server.sendall(refusal(record, KEY))
    assert receive(client, 16) == refusal(record, KEY)


async def test_a_refusal_that_comes_too_late_is_a_reset(world: World) -> None:
    world.open()
    client = world.client()
    client.shutdown(socket.SHUT_WR)  # from now on it can't be given back: the other host has its end
    record, server = world.arrival()
    assert server.recv(1) == b""
    server.sendall(refusal(record, KEY))
    with pytest.raises(ConnectionResetError):
        client.recv(1)


async def test_much_before_the_first_answer(world: World) -> None:
    world.open()
    client = world.client()
    _, server = world.arrival()
    data = bytes(range(256)) * 2000
    sending = threading.Thread(target=client.sendall, args=[data])
    sending.start()
    assert receive(server, len(data)) == data
    sending.join()


@pytest.mark.parametrize("size", [1, 1024, 1025, 100_000])
async def test_what_was_said_before_it_is_let_in(world: World, size: int) -> None:
    """Some of it goes with the record."""
    data = bytes(number % 251 for number in range(size))
    client = world.client(data)
    world.open()
    record, server = world.arrival()
    assert receive(server, size) == data
    client.sendall(b" and more")
    assert receive(server, 9) == b" and more"
    if size < 16384:  # else it is too much to be given back
        server.sendall(refusal(record, KEY))
        while not (told := world.hear())[1]:
            pass
        assert receive(told[1][0], size + 9) == data + b" and more"


@pytest.mark.parametrize("before", [b"", b"before"])
async def test_urgent_data_before_it_is_let_in(world: World, before: bytes) -> None:
    client = world.client(before)
    client.send(b"!", socket.MSG_OOB)
    client.sendall(b"after")
    world.open()
    _, server = world.arrival()
    assert select.select([], [], [server], PATIENCE)[2] == [server]
    assert server.recv(1, socket.MSG_OOB) == b"!"
    assert receive(server, len(before)) == before
    assert receive(server, 5) == b"after"


async def test_the_end_right_after_the_last_words(world: World) -> None:
    """Which go in one packet."""
    world.open()
    client = world.client()
    _, server = world.arrival()
    data = bytes(range(256)) * 8000
    server.settimeout(PATIENCE)

    def send() -> None:
        server.sendall(data)
        server.close()

    sending = threading.Thread(target=send)
    sending.start()
    assert receive(client, len(data)) == data
    assert client.recv(1) == b""
    sending.join()


async def test_urgent_data_before_the_first_answer(world: World) -> None:
    world.open()
    client = world.client(b"before")
    _, server = world.arrival()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    assert receive(server, 6) == b"before"
    client.send(b"!", socket.MSG_OOB)
    client.sendall(b"after")
    assert receive(server, 6) == b"!after"


async def test_urgent_data_before_the_relay_has_accepted(world: World) -> None:
    """Without keep_urgent, nearly half of such clients lose some: a second urgent byte takes the place of the first."""
    for port in (world.peer, world.port):
        keep_urgent(port, True)
    world.open()
    for _ in range(40):
        client = world.client()
        for byte in b"ABCDEFGH":
            client.send(bytes([byte]), socket.MSG_OOB)
        client.shutdown(socket.SHUT_WR)
        _, server = world.arrival()
        assert receive(server, 99) == b"ABCDEFGH"
        server.close()


async def test_resets_are_passed_on(world: World) -> None:
    world.open()
    client = world.client()
    _, server = world.arrival()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    client.close()
    with pytest.raises(ConnectionResetError):
        server.recv(1)
    client = world.client(b"question")
    _, server = world.arrival()
    assert receive(server, 8) == b"question"  # so the client doesn't go another way, and ask twice
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    server.close()
    with pytest.raises(ConnectionResetError):
        client.recv(1)


async def test_a_door_that_is_shut_is_no_door(world: World) -> None:
    world.open()
    world.client()
    _, server = world.arrival()
    world.say(lanes.encode_shut(DOOR))
    world.say(lanes.encode_question(42))
    while (report := world.hear()[0]).answered is None:
        assert report.entries
    assert report.answered == 42
    later = world.client()
    accepted, name = world.port.accept()
    with accepted:
        assert name == later.getsockname()
    server.sendall(b"what is joined goes on")


async def test_without_the_trap_handler_nobody_is_let_in_and_what_is_joined_goes_on(world: World) -> None:
    world.open()
    client = world.client()
    _, server = world.arrival()
    server.sendall(b"x")
    assert client.recv(1) == b"x"
    world.channel.close()
    world.relay.close()
    client.sendall(b"question")
    assert receive(server, 8) == b"question"
    world.client()
    world.port.accept()[0].close()  # it is ours again


async def test_orders_that_make_no_sense(world: World) -> None:
    for order in (
        b"",
        b"x",
        bytes(64),
        lanes.encode_door(5000, [1], None),
        lanes.encode_turns(DOOR, [1]),
        b"\1" * 4000,
    ):
        world.channel.send(order or b"\0")
    world.open()
    world.client(b"question")
    assert receive(world.arrival()[1], 8) == b"question"


async def test_the_idle_are_reset(world: World) -> None:
    world.open(idle=0.3)
    client = world.client()
    world.arrival()
    with pytest.raises(ConnectionResetError):
        client.recv(1)


async def test_a_port_that_is_closed_as_its_door_is_stirred() -> None:
    """One change of the table may do both: the door's task is awake already, so it isn't told that it is cancelled."""
    with socket.create_server(("127.0.0.1", 0)) as port:
        doors = Doors(*[MagicMock()] * 7)
        async with trio.open_nursery() as nursery:
            with unittest.mock.patch.object(Doors, "_settle", side_effect=[True, False]):
                exposure = Exposure(ip_address("10.1.1.1"), 80, port.getsockname()[1])
                door = doors._new(port, exposure)
                assert door is not None
                door.lanes[1] = Lane(1, 1, MagicMock(), 0.0, math.inf)
                nursery.start_soon(doors.hand_over, port, exposure)
                await wait_all_tasks_blocked()
                door.stir()
                nursery.cancel_scope.cancel()
                port.close()
                await trio.lowlevel.cancel_shielded_checkpoint()
