"""The HTTP server, over streams in memory: what it answers, and that nobody who misbehaves holds it up."""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from appswitch.edge import http
from appswitch.edge.http import HttpServer, Request, Response, Send, open_listening
from appswitch.errors import AppSwitchError

GET = b"GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n"
BIG = b"x" * (3 * http.PIECE)


async def handler(request: Request) -> Response:
    match request.path:
        case "/big":
            return Response(200, BIG)
        case "/fault":
            raise RuntimeError("a fault")
        case "/stream":
            return Response(200, type="text/event-stream", stream=count)
        case "/forever":
            return Response(200, stream=wait)
        case path:
            return Response(200, f"{request.method} {path} {dict(request.query)}".encode(), headers=(("X-Own", "1"),))


async def count(send: Send) -> None:
    for number in range(3):
        await send(b"data: %d\n\n" % number)


async def wait(_send: Send) -> None:
    await trio.sleep_forever()


class Client:
    """A client's end."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.got = b""

    async def ask(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def answer(self) -> tuple[int, bytes]:
        """One response's status and body, by its Content-Length."""
        while (end := self.got.find(b"\r\n\r\n")) < 0:
            assert await self._more(), self.got
        head, length = self.got[:end], int(re.findall(rb"Content-Length: (\d+)", self.got[:end])[0])
        while len(self.got) < end + 4 + length:
            assert await self._more(), self.got
        body, self.got = self.got[end + 4 : end + 4 + length], self.got[end + 4 + length :]
        return int(head.split()[1]), body

    async def rest(self) -> bytes:
        """All until it is closed."""
        while await self._more():
            pass
        return self.got

    async def _more(self) -> bool:
        try:
            data = await self.stream.receive_some(65536)
        except trio.BrokenResourceError:
            return False
        self.got += data
        return bool(data)


Connect = Callable[[], Client]


@asynccontextmanager
async def serving(pair: Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]]) -> AsyncIterator[Connect]:
    server = HttpServer(handler)
    async with trio.open_nursery() as nursery:

        def connect() -> Client:
            ours, theirs = pair()
            nursery.start_soon(server.serve_connection, theirs)
            return Client(ours)

        yield connect
        nursery.cancel_scope.cancel()


async def ask(data: bytes) -> bytes:
    """What is said to a client that says this and nothing more."""
    async with serving(trio.testing.memory_stream_pair) as connect:
        client = connect()
        await client.ask(data)
        await client.stream.send_eof()  # type: ignore[attr-defined]
        return await client.rest()


async def test_an_answer() -> None:
    said = await ask(b"GET /a%20b?x=1&x=2&y HTTP/1.1\r\nHost: localhost\r\n\r\n")
    head, _, body = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\nDate: ")
    assert b"X-Own: 1" in head
    assert body == b"GET /a b {'x': '2', 'y': ''}"


async def test_one_connection_takes_many_requests_also_at_once() -> None:
    async with serving(trio.testing.memory_stream_pair) as connect:
        client = connect()
        for name in (b"one", b"two"):
            await client.ask(GET % name)
            assert await client.answer() == (200, b"GET /%s {}" % name)
        await client.ask(GET % b"big" + GET % b"four")
        assert await client.answer() == (200, BIG)
        assert await client.answer() == (200, b"GET /four {}")


async def test_head() -> None:
    said = await ask(b"HEAD /big HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert b"Content-Length: %d" % len(BIG) in said
    assert said.endswith(b"\r\n\r\n")
    said = await ask(b"HEAD /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert b"event-stream" in said
    assert said.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", 405),
        (b"DELETE / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc", 413),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 413),
        (b"GET /fault HTTP/1.1\r\nHost: localhost\r\n\r\n", 500),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET //[ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /?" + b"&".join([b"a=b"] * 100) + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 TLS\r\n\r\n", 400),
        (b"GET /" + b"a" * 2 * http.MOST_HEAD + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 2 * http.MOST_HEAD, 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
    ],
)
async def test_what_isnt_taken(data: bytes, status: int) -> None:
    said = await ask(data)
    assert said.startswith(b"HTTP/1.1 %d " % status)
    assert said.count(b"HTTP/1.1 ") == 1


async def test_a_fault_is_no_ones_but_its_requests() -> None:
    async with serving(trio.testing.memory_stream_pair) as connect:
        client = connect()
        await client.ask(GET % b"fault")
        assert (await client.answer())[0] == 500
        await client.ask(GET % b"next")
        assert (await client.answer())[0] == 200


async def test_a_stream() -> None:
    async with serving(trio.testing.memory_stream_pair) as connect:
        client = connect()
        await client.ask(GET % b"stream")
        said = await client.rest()
    head, _, body = said.partition(b"\r\n\r\n")
    assert b"Content-Length" not in head
    assert re.findall(rb"data: (\d)", body) == [b"0", b"1", b"2"]
    assert body.endswith(b"0\r\n\r\n")  # chunked, to its end


async def test_a_stream_ends_with_its_client() -> None:
    server = HttpServer(handler)
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve_connection, theirs)
        await ours.send_all(GET % b"forever")
        await ours.receive_some()
        await ours.aclose()


async def test_slowloris(autojump_clock: MockClock) -> None:
    """However often a byte comes."""
    async with serving(trio.testing.memory_stream_pair) as connect:
        client = connect()
        began = trio.current_time()

        async def drip() -> None:
            await client.ask(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
            while True:
                await client.ask(b"a")
                await trio.sleep(1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip)
            assert not await client.rest()
            nursery.cancel_scope.cancel()
        assert trio.current_time() - began == pytest.approx(http.HEAD_WITHIN)


@pytest.mark.parametrize("path", [b"big", b"stream"])
async def test_who_doesnt_read_is_dropped(autojump_clock: MockClock, path: bytes) -> None:
    async with serving(trio.testing.lockstep_stream_pair) as connect:
        client = connect()
        await client.ask(GET % path)
        await trio.sleep(http.SENT_WITHIN + 1)
        with pytest.raises(trio.BrokenResourceError):
            await client.ask(b"x")


async def test_where_there_are_too_many_the_one_that_waited_longest_makes_room() -> None:
    async with serving(trio.testing.memory_stream_pair) as connect:
        busy = [connect() for _ in range(http.MOST_CONNECTIONS - 2)]
        for each in busy:
            await each.ask(GET % b"forever")
            assert b"200 OK" in await each.stream.receive_some()
        first = connect()
        await trio.testing.wait_all_tasks_blocked()
        second = connect()
        await trio.testing.wait_all_tasks_blocked()
        third = connect()
        assert not await first.rest()
        for each in (second, third):
            await each.ask(GET % b"still")
            assert (await each.answer())[0] == 200
            await each.ask(GET % b"forever")
            assert b"200 OK" in await each.stream.receive_some()
        assert not await connect().rest()  # all are busy


heads = st.lists(
    st.sampled_from(
        [b"GET ", b"HEAD ", b"POST ", b"/", b"/big", b"/stream", b"?a=b", b"%", b"%ff", b" HTTP/1.1", b" HTTP/1.0",
         b"\r\n", b"\n", b"Host: localhost\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n",
         b"\r\n\r\n", b"Connection: close\r\n", b"Upgrade: websocket\r\nConnection: upgrade\r\n",
         b"Expect: 100-continue\r\n", b"http://[", b"*", b"\0"]
    ) | st.binary(max_size=20),
    max_size=30,
).map(b"".join)  # fmt: skip


@given(st.one_of(st.binary(max_size=200), heads, heads.map(lambda data: GET % b"" + data)))
def test_whatever_comes_is_answered_or_closed(data: bytes) -> None:
    async def main() -> None:
        with trio.fail_after(5):
            said = await ask(data)
        if data.startswith(GET % b""):
            assert said.startswith(b"HTTP/1.1 200 ")
        assert not said or re.match(rb"HTTP/1\.1 (200|4\d\d) ", said)

    trio.run(main)


@given(st.binary(max_size=100))
def test_a_target_is_read_or_a_value_error(target: bytes) -> None:
    try:
        request = http.read_request(b"GET", target, [(b"Host", b"x")])
    except ValueError:
        return
    assert request.headers == {"host": "x"}
    assert "?" not in target.decode("latin-1").split("#")[0].split("?")[0]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_a_port(address: str) -> None:
    with open_listening(ip_address(address), 0) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(AppSwitchError) as caught:
            open_listening(ip_address(address), port)
        assert caught.value.reason == "bad-http"
        assert f"{address} port {port}" in caught.value.message
        assert "--http" in caught.value.hint
        async with trio.open_nursery() as nursery:
            nursery.start_soon(HttpServer(handler).serve, listening)
            client = Client(await trio.open_tcp_stream(address, port))
            await client.ask(GET % b"here")
            assert await client.answer() == (200, b"GET /here {}")
            await client.stream.aclose()
            nursery.cancel_scope.cancel()


def test_an_address_that_isnt_this_hosts() -> None:
    with pytest.raises(AppSwitchError, match="port 80 can't be used"):
        open_listening(ip_address("192.0.2.1"), 80)


def test_any_address_takes_both_versions() -> None:
    with open_listening(ip_address("::"), 0) as listening:
        port = listening.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)), socket.create_connection(("::1", port)):
            pass
