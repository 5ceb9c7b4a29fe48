"""python -m tests.fuzz.hostile app SOCKET | peer ADDRESS PORT KEY_FILE NODE TO: does its worst there, and ends.

What is answered doesn't matter; it prints how many things it has said.
"""

from __future__ import annotations

import random
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from itertools import islice
from pathlib import Path

import msgspec

from appswitch.host.cluster_key import read_key
from appswitch.model import Summary
from appswitch.wire import peer, trap
from appswitch.wire.peer_channel import HEAD_SIZE, MOST_FRAME, Opener, Sealer, Session, asks_key, rest_of
from tests.fuzz.mutate import inputs
from tests.fuzz.parsers import named

ROUNDS = 150
SEVERAL = 100  # at the same time
LARGEST = 200_000  # bytes of a message, about what SO_SNDBUF takes by default


def inputs_of(name: str, count: int) -> list[bytes]:
    """Of the parser of this name, changed by chance."""
    return list(islice(inputs(named(name).seeds, random.Random(5)), count))


# --- an app, at the trap socket


def at_trap_socket(path: str) -> int:
    frames = inputs_of("trap frames", ROUNDS)

    def channel() -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        made.settimeout(0.2)
        made.connect(path)
        return made

    said = 0
    for number, frame in enumerate(frames):
        with channel() as each, suppress(OSError):
            fds = [0] * (number % 3 * 80)  # none, some, more than are taken anywhere
            socket.send_fds(each, [frame], fds)
            said += 1
            if number % 2:
                each.recv(2000)
    for size in (0, 1, trap.HEADER - 1, trap.HEADER, trap.FRAME_SIZE, trap.FRAME_SIZE + 1, LARGEST):
        with channel() as each, suppress(OSError):
            each.send(bytes(size))
            said += 1
    with ExitStack() as stack:  # half of a frame each, and then nothing
        for _ in range(SEVERAL):
            with suppress(OSError):
                stack.enter_context(channel()).send(frames[0][:40])
                said += 1
    with channel() as each, suppress(OSError):  # questions, whose answers nobody reads
        each.settimeout(0.5)
        for _ in range(10_000):
            each.send(frames[0])
            said += 1
    return said


# --- another host, at the peer port


def _connect(address: str, port: int) -> socket.socket:
    made = socket.create_connection((address, port), timeout=2)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # no port waits for us
    return made


def _read(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        more = connection.recv(size - len(found))
        if not more:
            raise OSError("it was closed")
        found += more
    return found


def _prove(connection: socket.socket, key: bytes, node: str, to: str) -> Session:
    opener = Opener(key, node, to, random.randbytes(16))
    connection.sendall(opener.hello)
    head = _read(connection, HEAD_SIZE)
    proof, session = opener.prove(head + _read(connection, rest_of(head)[1]))
    connection.sendall(proof)
    return session


def _say_bodies(connection: socket.socket, session: Session, bodies: list[bytes], *, listens: bool) -> int:
    sealer, said = Sealer(asks_key(session)), 0
    connection.settimeout(0.05)
    for body in bodies:
        with suppress(TimeoutError):
            connection.sendall(sealer.seal(body))
            said += 1
            if listens:
                connection.recv(65536)
    return said


def at_peer_port(address: str, port: int, key: bytes, node: str, to: str) -> int:
    said = 0
    record = b"ASPC\3\5\0\x38" + bytes(72)  # of a lane (shim/lane/record.c)
    beginnings = [*inputs_of("peer openings", ROUNDS // 3), record, record[:20], b"GET / HTTP/1.1\r\n\r\n", b""]
    for each in beginnings:
        with suppress(OSError), _connect(address, port) as connection:
            connection.sendall(each)
            said += 1
    with ExitStack() as stack:  # who says nothing more
        for _ in range(SEVERAL):
            with suppress(OSError):
                stack.enter_context(_connect(address, port)).sendall(record[:7])
                said += 1
    attacks: list[Callable[[socket.socket, Session], int]] = [
        lambda connection, session: _say_bodies(
            connection, session, [peer.encode(peer.Ask(5, each)) for each in _questions()], listens=True
        ),
        lambda connection, session: _say_bodies(
            connection, session, [peer.encode(peer.Ask(1, peer.Pull()))] * 2000, listens=False
        ),
        *(
            lambda connection, session, body=body: _say_bodies(connection, session, [body], listens=True)
            for body in inputs_of("peer messages", ROUNDS // 3)
        ),
        lambda connection, _session: connection.sendall(struct.pack("!I", MOST_FRAME) + bytes(1000)) or 1,  # type: ignore[func-returns-value]
        lambda connection, _session: connection.sendall(bytes(100)) or 1,  # type: ignore[func-returns-value]
    ]
    for attack in attacks:
        with suppress(OSError), _connect(address, port) as connection:
            said += attack(connection, _prove(connection, key, node, to))
    return said


def _questions() -> list[peer.Request]:
    """Whose form is good."""
    any_ip, most = bytes(16), 2**63 - 1
    return [
        peer.Announce(most, most, any_ip, 65535, b"\xff" * 16, 0, 9),
        peer.Leave(most, any_ip, 0, ("a." * 127,) * 64),
        peer.Leave(1, b"\xff" * 16, 65535),
        peer.LookUp(b"", udp=True),
        peer.LookUp(bytes(65000), udp=False),
        peer.OpenFlow(most, -1, any_ip, 0, -1, any_ip, 0),
        peer.OpenLane(-1, 5),
        peer.OpenOutside(0, 0, any_ip, 0, any_ip, 0, ("\0",)),
        peer.OpenPorts(-1),
        peer.Pull(msgspec.convert({"incarnation": most, "seq": most, "digest": most}, Summary)),
        peer.Status(Summary(most, most, most)),
        peer.AskHealths(),
    ]


def main() -> None:
    kind, *words = sys.argv[1:]
    if kind == "app":
        print(at_trap_socket(words[0]))
    else:
        address, port, key, node, to = words
        print(at_peer_port(address, int(port), read_key(Path(key))[0].peer, node, to))


main()
