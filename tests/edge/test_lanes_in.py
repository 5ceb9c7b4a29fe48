"""The thread that takes connections by lanes: friends, strangers, and those who say too little or the same again."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from appswitch._lanes import ffi, lib

from appswitch.edge.epoch import Epoch
from appswitch.host.cookies import cookie_of
from appswitch.wire import socknames
from appswitch.wire.addresses import pack_ip
from appswitch.wire.lanes import read_entries
from tests.wire.test_lanes import refusal

PATIENCE = 20.0
KEY, LANE = b"k" * 16, 12345
CLIENT, GATEWAY = (IPv4Address("198.51.100.7"), 40000), (IPv4Address("192.0.2.1"), 8080)


def record(number: int, *, lane: int = LANE, key: bytes = KEY) -> bytes:
    made = ffi.new("struct as_lane_record *")
    made.lane, made.number = int.from_bytes(lane.to_bytes(8), "little"), int.from_bytes(number.to_bytes(8), "little")
    ffi.memmove(made.source_ip, pack_ip(CLIENT[0]), 16)
    ffi.memmove(made.dest_ip, pack_ip(GATEWAY[0]), 16)
    made.source_port, made.dest_port = socket.htons(CLIENT[1]), socket.htons(GATEWAY[1])
    lib.seal_record(made, key)
    return bytes(ffi.buffer(made))


class World:
    """A host with one listener, to which one lane leads."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.stack = stack
        self.epoch = Epoch()
        stack.callback(self.epoch.close)
        self.port = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1000))
        self.port.setblocking(False)
        self.app = stack.enter_context(socket.socket(socket.AF_UNIX))
        self.app.bind(str(directory / "listener"))
        self.app.listen(1)
        self.app.settimeout(PATIENCE)
        self.told, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.told.settimeout(PATIENCE)
        theirs.setblocking(False)
        self.native = lib.as_lanes_in_new(self.port.fileno(), theirs.fileno(), self.epoch.fd, 77)
        self.handle = os.open(directory / "listener", os.O_PATH)
        self.open_lane()
        thread = threading.Thread(target=lib.as_lanes_in_run, args=[self.native])
        thread.start()
        stack.callback(lib.as_lanes_in_free, self.native)
        stack.callback(theirs.close)
        stack.callback(thread.join)
        stack.callback(self.told.close)
        stack.callback(os.close, self.handle)

    def open_lane(self, number: int = LANE, family: int = 4) -> None:
        assert lib.as_lane_put(self.native, number, KEY, self.handle, 4, family, self.epoch.now) == 0

    def connect(self, data: bytes = b"") -> socket.socket:
        end = self.stack.enter_context(socket.create_connection(self.port.getsockname(), PATIENCE))
        end.sendall(data)
        return end

    def word(self) -> int:
        """What the trap handler is told."""
        return int(struct.unpack("=i", self.told.recv(4))[0])

    def accept(self) -> tuple[bytes, socket.socket]:
        """As the shim does."""
        carrier, name = self.app.accept()
        with carrier:
            _, (fd,), _, _ = socket.recv_fds(carrier, 1, 1)
        return name, self.stack.enter_context(socket.socket(fileno=fd))

    def entries(self) -> list[tuple[int, int, bytes]]:
        buffer = ffi.new("struct as_lane_entry[]", 100)
        count = lib.as_lanes_in_take(self.native, buffer, 100)
        return list(read_entries(bytes(ffi.buffer(buffer, count * ffi.sizeof(buffer[0])))))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(tmp_path, stack)


def ends(end: socket.socket) -> bytes:
    """All that it says until it ends; b"reset"."""
    data = b""
    try:
        while more := end.recv(1000):
            data += more
    except ConnectionResetError:
        return data or b"reset"
    return data


def test_one_that_comes_by_a_lane_is_the_programs_from_its_first_byte_on(world: World) -> None:
    with world.connect(record(1) + b"question") as client:
        name, end = world.accept()
        assert end.recv(100) == b"question"
        end.sendall(b"answer")
        assert client.recv(100) == b"answer"
    read = socknames.read_client_name(name)
    assert read == (77, 0, CLIENT, GATEWAY)
    assert world.word() == lib.AS_LANE_NEWS
    assert world.entries() == [(cookie_of(end), LANE, name)]
    assert world.entries() == []


def test_a_record_in_pieces(world: World) -> None:
    said = record(1)
    with world.connect(said[:3]) as client:
        for byte in said[3:]:
            client.sendall(bytes([byte]))
        client.sendall(b"x")
        _, end = world.accept()
        assert end.recv(1) == b"x"


def test_a_number_is_good_once(world: World) -> None:
    world.connect(record(5))
    world.accept()
    assert ends(world.connect(record(5))) == b"reset"
    world.connect(record(4))
    world.accept()


@pytest.mark.parametrize(
    "said",
    [record(1, key=b"x" * 16), record(1, lane=LANE + 4096), record(1, lane=7), record(0), record(1)[:-1] + b"?"],
    ids=["another key", "another lane in its place", "no such lane", "no number", "a changed MAC"],
)
def test_whoever_shows_no_key_gets_no_word(world: World, said: bytes) -> None:
    assert ends(world.connect(said)) == b"reset"
    assert world.entries() == []


def test_what_is_no_record_is_the_trap_handlers_unread(world: World) -> None:
    world.connect(b"ASPC\3\1 and so on")
    with socket.socket(fileno=world.word()) as found:
        assert found.recv(100) == b"ASPC\3\1 and so on"
    world.connect(b"G")
    with socket.socket(fileno=world.word()) as found:
        assert found.recv(100) == b"G"


def test_once_the_epoch_has_moved_on_all_are_refused_until_it_is_judged_again(world: World) -> None:
    world.epoch.advance()
    assert ends(world.connect(record(1) + b"question")) == refusal(record(1), KEY)
    assert world.word() == lib.AS_LANE_STALE
    assert ends(world.connect(record(2))) == refusal(record(2), KEY)
    lib.as_lane_judged(world.native, LANE, world.epoch.now)
    world.connect(record(3))
    world.accept()
    lib.as_lane_judged(world.native, LANE, 0)
    assert ends(world.connect(record(4))) == refusal(record(4), KEY)
    lib.as_lane_drop(world.native, LANE)
    assert ends(world.connect(record(5))) == b"reset"


def test_a_full_queue_and_a_gone_listener_refuse(world: World) -> None:
    waiting = [world.connect(record(number)) for number in (1, 2)]  # listen(2): one more than the backlog
    assert ends(world.connect(record(3))) == refusal(record(3), KEY)
    for _ in waiting:
        world.accept()
    world.app.close()
    assert ends(world.connect(record(4))) == refusal(record(4), KEY)


def test_clients_of_the_other_ip_version_are_refused(world: World) -> None:
    world.open_lane(family=6)
    assert ends(world.connect(record(1))) == refusal(record(1), KEY)


def test_those_who_say_too_little_are_few_and_not_for_long(world: World) -> None:
    silent = [world.connect(record(1)[: number % 80]) for number in range(300)]
    world.connect(record(1))
    world.accept()
    assert {ends(each) for each in silent[:44]} == {b"reset"}  # for newer ones
    assert ends(silent[-1]) == b"reset"  # after two seconds
    with suppress(OSError):
        silent[-2].sendall(b"x")
    world.connect(record(2))
    world.accept()


def test_those_who_leave_before_they_have_said_anything(world: World) -> None:
    for _ in range(100):
        world.connect().close()
        world.connect(record(1)[:20]).close()
    world.connect(record(1))
    world.accept()
