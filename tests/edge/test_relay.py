"""The relay: the program itself, between sockets of ours. What passes by it needs no task of this process."""

from __future__ import annotations

import itertools
import os
import random
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from appswitch.edge import relay as module
from appswitch.edge.relay import Relay
from appswitch.host.paths import relay_path
from appswitch.wire.relay import Tally, encode_join, encode_question

PATIENCE = 20.0
RESET = struct.pack("ii", 1, 0)  # struct linger: close aborts the connection (socket(7))

Ends = tuple[socket.socket, socket.socket]


def unix_pair() -> Ends:
    ends = socket.socketpair()
    for each in ends:
        each.settimeout(PATIENCE)
    return ends


def tcp_pair() -> Ends:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        one = socket.create_connection(listening.getsockname(), PATIENCE)
        other, _ = listening.accept()
    other.settimeout(PATIENCE)
    return one, other


@pytest.fixture
async def relay() -> AsyncIterator[Relay]:
    found = Relay()
    yield found
    found.close()


@pytest.fixture(params=[unix_pair, tcp_pair], ids=["unix", "tcp"])
def pair(request: pytest.FixtureRequest) -> Callable[[], Ends]:
    made: Callable[[], Ends] = request.param
    return made


async def joined(
    relay: Relay, pair: Callable[[], Ends] = tcp_pair, head: bytes = b"", idle: float | None = None
) -> Ends:
    """A client and a server, with the relay between."""
    client, near = pair()
    far, server = pair()
    await relay.join(near, far, head=head, idle=idle)
    assert near.fileno() == far.fileno() == -1
    return client, server


def receive(end: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := end.recv(size - len(data))):
        data += more
    return data


def receive_into(data: bytearray, end: socket.socket) -> None:
    while more := end.recv(1 << 16):
        data += more


async def until(relay: Relay, holds: Callable[[Tally], bool]) -> Tally:
    """The relay's tally, once it says so."""
    with trio.fail_after(PATIENCE):
        while not holds(tally := await relay.tally()):  # noqa: ASYNC110 - there is nothing to wait for
            await trio.sleep(0.005)
    return tally


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


# --- data


async def test_what_one_sends_the_other_gets(relay: Relay, pair: Callable[[], Ends]) -> None:
    client, server = await joined(relay, pair)
    with client, server:
        for _ in range(3):
            client.sendall(b"question")
            assert receive(server, 8) == b"question"
            server.sendall(b"answer")
            assert receive(client, 6) == b"answer"
        assert (await relay.tally()).passed == 42


async def test_the_head_comes_first(relay: Relay, pair: Callable[[], Ends]) -> None:
    client, near = pair()
    far, server = pair()
    with client, server:
        client.sendall(b"question")
        await relay.join(near, far, head=b"head, then ")
        assert receive(server, 19) == b"head, then question"
        server.sendall(b"answer")
        assert receive(client, 6) == b"answer"


async def test_a_head_that_is_too_long(relay: Relay) -> None:
    client, near = unix_pair()
    far, server = unix_pair()
    with client, server:
        with pytest.raises(ValueError, match="bytes at most"):
            await relay.join(near, far, head=bytes(5000))
        assert client.recv(1) == server.recv(1) == b""


async def test_one_that_is_still_connecting(relay: Relay) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, socket.socket() as far:
        full.settimeout(PATIENCE)
        first = socket.create_connection(full.getsockname())
        far.setblocking(False)
        assert far.connect_ex(full.getsockname())
        client, near = tcp_pair()
        with first, client:
            client.sendall(b"question")
            await relay.join(near, far, head=b"the ")
            full.accept()[0].close()  # the SYN is sent again within a second
            server, _ = full.accept()
            with server:
                assert receive(server, 12) == b"the question"


async def test_one_that_cant_connect(relay: Relay) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, socket.socket() as far:
        first = socket.create_connection(full.getsockname())
        far.setblocking(False)
        assert far.connect_ex(full.getsockname())
        client, near = tcp_pair()
        await relay.join(near, far)
    with first, client, pytest.raises(ConnectionResetError):
        client.recv(1)


async def test_urgent_data(relay: Relay) -> None:
    client, server = await joined(relay)
    with client, server:
        client.sendall(b"before ")
        client.send(b"!", socket.MSG_OOB)
        client.sendall(b"after")
        assert select.select([], [], [server], PATIENCE)[2]
        assert server.recv(1, socket.MSG_OOB) == b"!"
        assert receive(server, 7) == b"before "
        assert receive(server, 5) == b"after"


@pytest.mark.parametrize("slow", [False, True])
async def test_no_urgent_byte_is_lost(relay: Relay, slow: bool) -> None:
    """Many in a row, also for a server that doesn't read: where there is no room, it waits as any other."""
    client, server = await joined(relay)
    await until(relay, lambda tally: tally.pairs == 1)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    sent = bytearray()
    with client, server:
        client.setblocking(False)
        for number in range(20_000):
            data = bytes([number % 251]) * (1 + 4000 * slow * (number % 7 > 0))
            try:
                sent += data[: client.send(data, socket.MSG_OOB if number % 7 == 0 else 0)]
            except BlockingIOError:
                break
        assert slow == (number < 19_999)
        client.shutdown(socket.SHUT_WR)
        got = bytearray()
        await trio.to_thread.run_sync(receive_into, got, server)
    assert got == sent


# --- ends


@pytest.mark.parametrize("first", [0, 1])
async def test_half_closed(relay: Relay, pair: Callable[[], Ends], first: int) -> None:
    ends = await joined(relay, pair)
    one, other = ends[first], ends[1 - first]
    with one, other:
        one.sendall(b"question")
        one.shutdown(socket.SHUT_WR)
        assert receive(other, 100) == b"question"
        for _ in range(2):
            other.sendall(b"answer")
            assert receive(one, 6) == b"answer"
        other.shutdown(socket.SHUT_WR)
        assert one.recv(1) == b""
        await until(relay, lambda tally: tally.pairs == 0)


@pytest.mark.parametrize("first", [0, 1])
async def test_a_reset_is_passed_on(relay: Relay, first: int) -> None:
    ends = await joined(relay)
    one, other = ends[first], ends[1 - first]
    with other:
        one.sendall(b"this came")
        assert receive(other, 9) == b"this came"
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        one.close()
        with pytest.raises(ConnectionResetError):
            other.recv(1)
    await until(relay, lambda tally: tally.pairs == 0)


async def test_a_reset_after_a_half_close(relay: Relay) -> None:
    client, server = await joined(relay)
    with server:
        client.shutdown(socket.SHUT_WR)
        assert server.recv(1) == b""
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        client.close()
        await until(relay, lambda tally: tally.pairs == 0)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            server.send(b"answer")


async def test_who_sends_to_one_that_has_closed_is_told(relay: Relay) -> None:
    client, server = await joined(relay)
    client.close()
    with server:
        assert server.recv(1) == b""
        server.sendall(b"more")
        await until(relay, lambda tally: tally.pairs == 0)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            server.sendall(b"more")


# --- slow and idle ones


def send_until_full(end: socket.socket, data: memoryview) -> int:
    end.setblocking(False)
    sent = 0
    while select.select([], [end], [], 0.2)[1]:
        sent += end.send(data[sent:])
    end.settimeout(PATIENCE)
    return sent


async def test_who_doesnt_read_holds_back_who_sends(relay: Relay, pair: Callable[[], Ends]) -> None:
    data = random.Random(1).randbytes(1 << 20) * 64
    client, server = await joined(relay, pair)
    with client, server:
        sent = send_until_full(client, memoryview(data))
        assert sent < len(data)
        assert (await relay.tally()).pipes == 1
        server.sendall(b"the other way is free")
        assert receive(client, 21) == b"the other way is free"
        client.shutdown(socket.SHUT_WR)
        assert receive(server, len(data)) == data[:sent]
        assert (await relay.tally()).pipes == 0


async def test_what_came_before_a_reset_is_passed_on_also_to_a_slow_one(relay: Relay) -> None:
    data = random.Random(1).randbytes(1 << 20) * 64
    client, server = await joined(relay)
    with server:
        send_until_full(client, memoryview(data))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        client.close()
        got = bytearray()
        with pytest.raises(ConnectionResetError):
            receive_into(got, server)
        assert len(got) > 1 << 16
        assert data.startswith(got)


async def test_idle_ones_are_reset_and_others_not(relay: Relay) -> None:
    busy, ends = await joined(relay, idle=1.0), await joined(relay)
    idle_client, idle_server = await joined(relay, idle=0.1)
    with idle_client, idle_server:
        with pytest.raises(ConnectionResetError):
            idle_client.recv(1)
        with pytest.raises(ConnectionResetError):
            idle_server.recv(1)
    for _ in range(20):
        busy[0].sendall(b"x")
        assert busy[1].recv(1) == b"x"
        await trio.sleep(0.1)
    for end in busy:
        with pytest.raises(ConnectionResetError):
            end.recv(1)
        end.close()
    assert (await relay.tally()).pairs == 1
    ends[0].sendall(b"still there")
    assert receive(ends[1], 11) == b"still there"
    for end in ends:
        end.close()


KEEP = """
import resource, socket, sys

_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
channel = socket.socket(fileno=int(sys.argv[1]))
ends = []
while (received := socket.recv_fds(channel, 1, 1))[0] == b"+":
    ends.append(socket.socket(fileno=received[1][0]))
for end in ends:
    end.setblocking(True)
    end.sendall(end.recv(100))
channel.recv(1)
"""


async def test_ten_thousand_idle_connections_cost_no_pipes(relay: Relay) -> None:
    """Another process keeps the servers' ends."""
    count = 10_000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count + 1000:
        pytest.skip(f"no more than {hard} open files are allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    channel, theirs = socket.socketpair()
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        fd = theirs.fileno()
        command = [sys.executable, "-c", KEEP, str(fd)]
        stack.enter_context(subprocess.Popen(command, pass_fds=[fd]))  # noqa: ASYNC220 - it returns at once
        theirs.close()
        stack.enter_context(channel)
        first = await relay.tally()
        used, clients = memory(first.pid), []
        for _ in range(count):
            client, server = await joined(relay, unix_pair, idle=600)
            clients.append(stack.enter_context(client))
            with server:
                socket.send_fds(channel, [b"+"], [server.fileno()])
        channel.send(b"!")
        for client in clients:
            client.sendall(b"question")
            assert receive(client, 8) == b"question"
        last = await relay.tally()  # another one where a process may have 20,000 descriptors
        assert last.pipes == 0
        assert memory(first.pid) - used < 400 * count  # bytes: what the program needs beside the kernel's sockets
    await until(relay, lambda tally: tally.pairs == 0)


def memory(pid: int) -> int:
    """Bytes that a process has for itself."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


# --- any order


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 1), st.sampled_from([1, 100, 70_000])),
        st.tuples(st.sampled_from(["read", "half-close"]), st.integers(0, 1), st.just(0)),
    ),
    max_size=12,
)


@settings(max_examples=60)
@given(STEPS)
def test_each_gets_all_that_the_other_sent_in_whatever_order(steps: list[tuple[str, int, int]]) -> None:
    async def run() -> None:
        relay = Relay()
        ends = await joined(relay)
        relay.close()
        owed, closed, source = [b"", b""], [False, False], random.Random(1)
        with ends[0], ends[1]:
            for step, index, size in [*steps, ("half-close", 0, 0), ("half-close", 1, 0)]:
                if step == "send" and not closed[index] and len(owed[1 - index]) < 140_000:
                    data = source.randbytes(size)
                    ends[index].sendall(data)
                    owed[1 - index] += data
                elif step == "read":
                    assert receive(ends[index], len(owed[index])) == owed[index]
                    owed[index] = b""
                elif step == "half-close" and not closed[index]:
                    ends[index].shutdown(socket.SHUT_WR)
                    closed[index] = True
            for index in (0, 1):
                assert receive(ends[index], len(owed[index]) + 1) == owed[index]

    trio.run(run)


# --- the program's own life


SERVE = """
import socket, sys, trio
from appswitch.edge.relay import Relay

async def main():
    relay = Relay()
    await relay.join(*(socket.socket(fileno=int(fd)) for fd in sys.argv[1:]))
    print((await relay.tally()).pid, flush=True)
    await trio.sleep_forever()

trio.run(main)
"""


def test_it_outlives_a_killed_trap_handler_until_its_last_connection_has_ended() -> None:
    client, near = tcp_pair()
    far, server = tcp_pair()
    fds = [near.fileno(), far.fileno()]
    command = [sys.executable, "-c", SERVE, *map(str, fds)]
    with client, server, subprocess.Popen(command, pass_fds=fds, stdout=subprocess.PIPE, text=True) as serve:
        near.close()
        far.close()
        assert serve.stdout is not None
        pidfd = os.pidfd_open(int(serve.stdout.readline()))
        serve.send_signal(signal.SIGKILL)
        serve.wait()
        assert serve.stdout.read() == ""  # nothing of the trap handler's is kept open
        client.sendall(b"question")
        assert receive(server, 8) == b"question"
        assert not select.select([pidfd], [], [], 0)[0]
        client.close()
        server.close()
        assert select.select([pidfd], [], [], PATIENCE)[0]
        os.close(pidfd)


async def test_what_waits_in_the_channel_is_joined_after_the_trap_handler_has_gone(relay: Relay) -> None:
    pid = (await relay.tally()).pid
    os.kill(pid, signal.SIGSTOP)
    client, server = await joined(relay)
    relay.close()
    os.kill(pid, signal.SIGCONT)
    with client, server:
        client.sendall(b"question")
        assert receive(server, 8) == b"question"


async def test_one_that_was_killed_is_replaced(relay: Relay) -> None:
    client, server = await joined(relay)
    with client, server:
        pidfd = os.pidfd_open((await relay.tally()).pid)
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        assert select.select([pidfd], [], [], PATIENCE)[0]
        os.close(pidfd)
        assert client.recv(1) == b""
    client, server = await joined(relay)
    with client, server:
        client.sendall(b"question")
        assert receive(server, 8) == b"question"


async def test_a_socket_that_somebody_else_has_open_still(relay: Relay) -> None:
    """As we have for a moment: to epoll(7) it is open until we have closed it, too."""
    client, near = unix_pair()
    far, server = unix_pair()
    with client, near.dup(), far.dup():
        await relay.join(near, far)
        server.close()
        assert client.recv(1) == b""
        client.shutdown(socket.SHUT_WR)
        await until(relay, lambda tally: tally.pairs == 0)
        client.close()
        other_client, other_server = await joined(relay, unix_pair)
        with other_client, other_server:
            other_client.sendall(b"question")
            assert receive(other_server, 8) == b"question"
        assert (await relay.tally()).joined == 2


async def test_messages_that_make_no_sense_are_passed_over(relay: Relay, tmp_path: Path) -> None:
    pid = (await relay.tally()).pid
    had = descriptors(pid)
    channel, join = relay._channel, encode_join(b"", None)
    assert channel is not None
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        (tmp_path / "file").open("w") as file,
        socket.socket() as tcp,
    ):
        good = tcp.fileno()
        for message, fds in [
            (b"x", []),
            (b"x", [good, good]),
            (join, []),
            (join, [good]),
            (join, [good, good, good]),
            (join, [good] * 100),
            (join, [good, udp.fileno()]),
            (join, [file.fileno(), good]),
            (join + bytes(5000), [good, good]),
            (b"\xff" * 4 + join[4:], [good, good]),
            (encode_question() + b"x", []),
            (encode_join(b"for nobody", None), [good, good]),
            (join, [good, good]),
        ]:
            socket.send_fds(channel, [message], fds)
    tally = await until(relay, lambda tally: tally.pairs == 0)
    assert tally.pid == pid
    assert descriptors(pid) <= had + 2  # a pipe is kept
    client, server = await joined(relay)
    with client, server:
        client.sendall(b"question")
        assert receive(server, 8) == b"question"


@pytest.mark.program("prlimit", "unshare")
async def test_one_that_has_no_descriptor_left_lets_another_take_new_ones(
    relay: Relay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "relay"
    script.write_text(f"#!/bin/sh\nexec prlimit --nofile=128:128 unshare --user {relay_path()}\n")
    script.chmod(0o755)
    monkeypatch.setattr(module, "relay_path", lambda: script)
    first = (await relay.tally()).pid
    all_ends = [await joined(relay) for _ in range(60)]
    for client, server in all_ends:
        client.sendall(b"question")
        assert receive(server, 8) == b"question"
    assert (await relay.tally()).pid != first
    for end in itertools.chain(*all_ends):
        end.close()
    await until(relay, lambda tally: tally.pairs == 0)


def test_it_says_that_it_is_not_for_people() -> None:
    done = subprocess.run([relay_path()], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "appswitch-relay: `appswitch serve` starts it\n")
