"""Two trap handlers' channels over loopback: asking, being asked, and those who may do neither."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack

import pytest
import structlog.testing
import trio
import trio.testing

from appswitch.edge import peer_channel, peers
from appswitch.edge.peer_channel import Caller, UnreachableError
from appswitch.edge.peers import Peers, listen
from appswitch.model import Summary
from appswitch.wire.peer import Announce, Announced, Answer, Ask, Pull, Pulled, Request, Status, encode
from appswitch.wire.peer_channel import MOST_ASKED, VERSION, Opener, Sealer, Session, arrival, asks_key

KEY = b"k" * 32
STATUS = Status(Summary(1, 2, 3))


class Cluster:
    """Nodes by name; each knows where all are."""

    def __init__(self, nursery: trio.Nursery, stack: ExitStack) -> None:
        self._nursery = nursery
        self._stack = stack
        self._running: dict[str, trio.CancelScope] = {}
        self.addresses: dict[str, tuple[str, int]] = {}

    async def start(self, name: str, key: bytes = KEY, *, where: str = "") -> Peers:
        """where: the node that others take it for."""
        node = Peers(name, key, self.addresses.get)
        listening = self._stack.enter_context(listen("127.0.0.1", 0))
        self.addresses[where or name] = "127.0.0.1", listening.getsockname()[1]
        await self._nursery.start(self._serve, name, node, listening)
        return node

    async def _serve(
        self, name: str, node: Peers, listening: socket.socket, task_status: trio.TaskStatus[None]
    ) -> None:
        with trio.CancelScope() as self._running[name], listening:
            await node.serve(listening, task_status)

    def stop(self, name: str) -> None:
        """Its trap handler ends."""
        self._running[name].cancel()

    def connect(self, name: str) -> socket.socket:
        """By a stranger."""
        stranger = self._stack.enter_context(socket.create_connection(self.addresses[name]))
        stranger.setblocking(False)
        return stranger


@pytest.fixture
async def cluster(nursery: trio.Nursery) -> AsyncIterator[Cluster]:
    with ExitStack() as stack:
        yield Cluster(nursery, stack)


async def echo(_caller: Caller, request: Request) -> Answer:
    await trio.lowlevel.checkpoint()
    assert isinstance(request, Status)
    return request


async def read(connection: socket.socket) -> bytes:
    """What the other side says next; b"": it has closed."""
    with trio.fail_after(10):
        await trio.lowlevel.wait_readable(connection)
    try:
        return connection.recv(4096)
    except ConnectionResetError:
        return b""


async def test_a_node_asks_another(cluster: Cluster) -> None:
    a, b = await cluster.start("a"), await cluster.start("b")
    callers: list[Caller] = []

    async def answer(caller: Caller, request: Status) -> Answer:
        callers.append(caller)
        return await echo(caller, request)

    b.handlers[Status] = answer
    a.handlers[Status] = echo
    assert await a.ask("b", STATUS, 5) == STATUS
    assert await a.ask("b", STATUS, 5) == STATUS
    assert await b.ask("a", STATUS, 5) == STATUS
    assert [caller.node for caller in callers] == ["a", "a"]
    assert callers[0].session == callers[1].session == (await a.channel("b")).session, "one channel was used"


async def test_many_at_once_and_each_gets_its_own_answer(cluster: Cluster) -> None:
    a, b = await cluster.start("a"), await cluster.start("b")
    last = trio.Event()

    async def answer(_caller: Caller, request: Status) -> Answer:
        if request.mine.seq == 199:
            last.set()
        await last.wait()
        return request

    b.handlers[Status] = answer
    answers: dict[int, Answer] = {}

    async def ask(number: int) -> None:
        answers[number] = await a.ask("b", Status(Summary(1, number, 0)), 30)

    async with trio.open_nursery() as nursery:
        for number in range(200):
            nursery.start_soon(ask, number)
    assert answers == {number: Status(Summary(1, number, 0)) for number in range(200)}


async def test_a_large_answer(cluster: Cluster) -> None:
    a, b = await cluster.start("a"), await cluster.start("b")

    async def answer(_caller: Caller, _request: Pull) -> Answer:
        await trio.lowlevel.checkpoint()
        return Pulled(bytes(8 << 20))

    b.handlers[Pull] = answer
    assert await a.ask("b", Pull(), 30) == Pulled(bytes(8 << 20))


async def test_one_that_is_too_large_is_refused(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appswitch.wire.peer_channel.MOST_FRAME", 1000)
    a, b = await cluster.start("a"), await cluster.start("b")

    async def answer(_caller: Caller, _request: Pull) -> Answer:
        await trio.lowlevel.checkpoint()
        return Pulled(bytes(1001))

    b.handlers[Pull] = answer
    b.handlers[Status] = echo
    with pytest.raises(OSError, match="too large"):
        await a.ask("b", Pull(), 5)
    assert await a.ask("b", STATUS, 5) == STATUS


async def test_no_said_by_the_other_side(cluster: Cluster) -> None:
    a, b = await cluster.start("a"), await cluster.start("b")

    async def refuse(_caller: Caller, _request: Status) -> Answer:
        await trio.lowlevel.checkpoint()
        raise ConnectionRefusedError(errno.ECONNREFUSED, "not today")

    b.handlers[Status] = refuse
    with pytest.raises(ConnectionRefusedError, match="not today") as caught:
        await a.ask("b", STATUS, 5)
    assert not isinstance(caught.value, UnreachableError)
    with pytest.raises(OSError, match="doesn't answer Pull"):
        await a.ask("b", Pull(), 5)


async def test_a_fault_there_costs_one_answer(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    a, b = await cluster.start("a"), await cluster.start("b")

    async def fail(_caller: Caller, _request: Pull) -> Answer:
        raise RuntimeError

    b.handlers[Pull] = fail
    b.handlers[Status] = echo
    with pytest.raises(OSError, match="a fault"):
        await a.ask("b", Pull(), 5)
    assert await a.ask("b", STATUS, 5) == STATUS


async def test_no_answer_in_time(cluster: Cluster) -> None:
    a, b = await cluster.start("a"), await cluster.start("b")

    async def never(_caller: Caller, _request: Pull) -> Answer:
        await trio.sleep_forever()
        raise AssertionError

    b.handlers[Pull] = never
    b.handlers[Status] = echo
    with pytest.raises(UnreachableError) as caught:
        await a.ask("b", Pull(), 0.01)
    assert caught.value.errno == errno.ETIMEDOUT
    assert await a.ask("b", STATUS, 5) == STATUS, "the channel is as good as before"


async def test_a_busy_node_has_more_time(cluster: Cluster) -> None:
    """As long as it answers others."""
    a, b = await cluster.start("a"), await cluster.start("b")
    go = trio.Event()

    async def later(_caller: Caller, _request: Pull) -> Answer:
        await go.wait()
        return Pulled(b"at last")

    b.handlers[Pull] = later
    b.handlers[Status] = echo
    patience = 0.1

    async def ask_others() -> None:
        start = trio.current_time()
        while trio.current_time() < start + 3 * patience:
            await a.ask("b", STATUS, 5)
        go.set()

    await a.channel("b")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask_others)
        assert await a.ask("b", Pull(), patience) == Pulled(b"at last")


async def test_nobody_there(cluster: Cluster) -> None:
    a = await cluster.start("a")
    with pytest.raises(UnreachableError) as unknown:
        await a.ask("b", STATUS, 5)
    assert unknown.value.errno == errno.EHOSTUNREACH
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        cluster.addresses["b"] = closed.getsockname()
        with pytest.raises(UnreachableError) as refused:
            await a.ask("b", STATUS, 5)
    assert refused.value.errno == errno.ECONNREFUSED


async def test_a_host_that_says_nothing(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "OPEN_WITHIN", 0.05)
    a = await cluster.start("a")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        cluster.addresses["b"] = silent.getsockname()
        with pytest.raises(UnreachableError) as caught:
            await a.ask("b", STATUS, 5)
    assert caught.value.errno == errno.ETIMEDOUT


async def test_who_waits_hears_at_once_that_the_other_side_has_gone(cluster: Cluster) -> None:
    a, b = await cluster.start("a"), await cluster.start("b")

    async def stop(_caller: Caller, _request: Status) -> Answer:
        cluster.stop("b")
        await trio.sleep_forever()
        raise AssertionError

    b.handlers[Status] = stop
    with pytest.raises(UnreachableError) as caught, trio.fail_after(60):
        await a.ask("b", STATUS, 1000)
    assert caught.value.errno == errno.ECONNRESET


async def test_a_node_that_was_restarted_is_asked_anew(cluster: Cluster) -> None:
    a = await cluster.start("a")
    (await cluster.start("b")).handlers[Status] = echo
    assert await a.ask("b", STATUS, 5) == STATUS
    cluster.stop("b")
    await trio.testing.wait_all_tasks_blocked(0.01)
    (await cluster.start("b")).handlers[Status] = echo
    assert await a.ask("b", STATUS, 5) == STATUS


async def test_an_idle_channel_is_closed(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_channel, "IDLE", 0.01)
    a, b = await cluster.start("a"), await cluster.start("b")
    b.handlers[Status] = echo
    first = await a.channel("b")
    await a.ask("b", STATUS, 5)
    with trio.fail_after(10):
        while not first.is_over:  # noqa: ASYNC110 - there is nothing to wait for
            await trio.sleep(0.005)
    assert await a.ask("b", STATUS, 5) == STATUS


# --- those without the key


@pytest.mark.parametrize(("mine", "theirs"), [(KEY, b"o" * 32), (KEY, b""), (b"", KEY)])
async def test_another_key(cluster: Cluster, mine: bytes, theirs: bytes) -> None:
    a, b = await cluster.start("a", mine), await cluster.start("b", theirs)
    b.handlers[Status] = echo
    with pytest.raises(UnreachableError, match="another key or version") as caught:
        await a.ask("b", STATUS, 5)
    assert caught.value.errno == errno.EPROTO


async def test_no_key_at_all_is_a_key(cluster: Cluster) -> None:
    a, b = await cluster.start("a", b""), await cluster.start("b", b"")
    b.handlers[Status] = echo
    assert await a.ask("b", STATUS, 5) == STATUS


async def test_another_node_at_the_address(cluster: Cluster) -> None:
    a = await cluster.start("a")
    await cluster.start("c", where="b")
    with pytest.raises(UnreachableError, match="it is node c"):
        await a.ask("b", STATUS, 5)


@pytest.mark.parametrize(
    "said", [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", os.urandom(200), b"ASPC\x01\x01\xff\xff", b"ASPC\x02"]
)
async def test_a_stranger_gets_not_a_byte(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    monkeypatch.setattr(peers, "PROVEN_WITHIN", 0.1)
    await cluster.start("a")
    stranger = cluster.connect("a")
    stranger.send(said)
    assert await read(stranger) == b""


async def test_a_host_of_another_version(cluster: Cluster) -> None:
    """It isn't let in, and the log says why; those of the same version go on."""
    a, b = await cluster.start("a"), await cluster.start("b")
    b.handlers[Status] = echo
    hello = Opener(KEY, "c", "b", bytes(16)).hello
    with structlog.testing.capture_logs() as lines:
        stranger = cluster.connect("b")
        stranger.send(hello[:4] + bytes([VERSION + 1]) + hello[5:])
        assert await read(stranger) == b""
    assert [line["reason"] for line in lines] == [
        f"it speaks version {VERSION + 1} of the protocol, and we speak {VERSION}"
    ]
    assert await a.ask("b", STATUS, 5) == STATUS


async def test_a_stranger_that_says_nothing_is_not_kept(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "PROVEN_WITHIN", 0.05)
    await cluster.start("a")
    assert await read(cluster.connect("a")) == b""


async def test_an_old_hello_gets_no_further(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "PROVEN_WITHIN", 0.1)
    await cluster.start("a")
    eavesdropper = cluster.connect("a")
    eavesdropper.send(Opener(KEY, "b", "a", b"n" * 16).hello)
    assert await read(eavesdropper)
    assert await read(eavesdropper) == b""


async def test_the_oldest_stranger_goes_and_peers_get_in(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "PROVEN_WITHIN", 1000.0)
    monkeypatch.setattr(peers, "MOST_UNPROVEN", 3)
    a, b = await cluster.start("a"), await cluster.start("b")
    b.handlers[Status] = echo
    strangers = [cluster.connect("b") for _ in range(4)]
    assert await read(strangers[0]) == b""
    assert await a.ask("b", STATUS, 5) == STATUS
    assert await read(strangers[1]) == b""
    for stranger in strangers[2:]:
        with pytest.raises(BlockingIOError):
            stranger.recv(1)


async def open_channel(cluster: Cluster, node: str, to: str) -> tuple[socket.socket, Session]:
    """As a node does that has the key."""
    connection = cluster.connect(to)
    opener = Opener(KEY, node, to, os.urandom(16))
    connection.send(opener.hello)
    proof, session = opener.prove(await read(connection))
    connection.send(proof)
    return connection, session


@pytest.mark.parametrize("is_known", [True, False])
async def test_a_node_that_opens_channels_without_end(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, is_known: bool
) -> None:
    monkeypatch.setattr(peers, "MOST_ANSWERED" if is_known else "MOST_UNPROVEN", 3)
    monkeypatch.setattr(peers, "PROVEN_WITHIN", 1000.0)
    await cluster.start("b")
    a = await cluster.start("a")
    a.handlers[Status] = echo
    opened = [await open_channel(cluster, "b" if is_known else f"nobody-{number}", "a") for number in range(4)]
    assert await read(opened[0][0]) == b""
    connection, session = opened[3]
    connection.send(Sealer(asks_key(session)).seal(encode(Ask(1, STATUS))))
    assert await read(connection)


async def test_a_question_has_a_size(cluster: Cluster) -> None:
    """Answers are large; who asks has little to say."""
    await cluster.start("a")
    connection, session = await open_channel(cluster, "b", "a")
    connection.send(Sealer(asks_key(session)).seal(bytes(MOST_ASKED + 1))[:100])
    assert await read(connection) == b""


async def test_a_connection_that_nobody_announced(cluster: Cluster) -> None:
    a = await cluster.start("a")
    await cluster.start("b")
    stranger = cluster.connect("b")
    stranger.send(arrival((await a.channel("b")).session, 1))
    assert await read(stranger) == b""


async def test_a_connection_is_handed_over_with_what_follows_its_preamble(cluster: Cluster) -> None:
    a, b = await cluster.start("a"), await cluster.start("b")
    taken: list[tuple[bytes, socket.socket]] = []
    came = trio.Event()

    async def arrived(preamble: bytes, connection: socket.socket) -> None:
        await trio.lowlevel.checkpoint()
        taken.append((preamble, socket.socket(fileno=connection.detach())))
        came.set()

    b.arrived = arrived
    preamble = arrival((await a.channel("b")).session, 1)
    client = cluster.connect("b")
    client.send(preamble + b"the program's")
    await came.wait()
    assert taken[0][0] == preamble
    with taken[0][1] as server:
        assert server.recv(100) == b"the program's"
        server.send(b"answer")
        assert await read(client) == b"answer"


async def test_an_announce_is_no_answer(cluster: Cluster) -> None:
    """What a handler answers must be one: the type says so, and the channel's other side looks."""
    a, b = await cluster.start("a"), await cluster.start("b")

    async def answer(_caller: Caller, _request: Announce) -> Answer:
        await trio.lowlevel.checkpoint()
        return Announced(1)

    b.handlers[Announce] = answer
    assert await a.ask("b", Announce(1, 2, bytes(16), 0, bytes(16), 80, 4), 5) == Announced(1)
