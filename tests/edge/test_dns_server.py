"""The DNS server with real sockets on loopback, and upstreams of the test's own there."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from ipaddress import IPv4Address

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
import trio
import trio.lowlevel
import trio.testing

from appswitch.edge.dns import UPSTREAM_TIMEOUT, DnsServer, Upstream, look_up
from appswitch.model import Address
from appswitch.wire.dns import Found, Zone
from tests.harness import free_port

MANY = 60
APPS: dict[str, Address] = {"web": IPv4Address("10.1.1.1")}
ZONE = Zone(
    "appswitch.local",
    resolve=APPS.get,
    names_of=lambda _: [f"instance-{number}" for number in range(MANY)],
    owns=lambda ip: ip in APPS.values(),
)
REVERSE = "1.1.1.10.in-addr.arpa."  # has an answer that fits no datagram

Reply = Callable[[bytes], bytes | None]


def outside(query: bytes) -> bytes:
    """What an upstream says."""
    message = dns.message.from_wire(query)
    reply = dns.message.make_response(message)
    reply.answer.append(dns.rrset.from_text(message.question[0].name, 60, "IN", "A", "198.51.100.1"))
    return reply.to_wire()


def sockets() -> tuple[socket.socket, socket.socket]:
    """A UDP socket and a listening TCP socket on one port of 127.0.0.1, on which nothing comes that is for others."""
    datagrams, listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket()
    port = free_port()
    for each in (datagrams, listening):
        each.bind(("127.0.0.1", port))
    listening.listen()
    return datagrams, listening


class World:
    """The server under test, and upstreams on ports of their own."""

    def __init__(self, nursery: trio.Nursery, stack: ExitStack) -> None:
        self.nursery = nursery
        self.stack = stack
        self.ports: list[int] = []
        self.asked: list[tuple[int, bytes]] = []
        self.asking: list[tuple[str, int]] = []
        """From where, by UDP."""
        self.answers: list[bytes] = []
        self.found: list[Found] = []

    def upstream(self, reply: Reply) -> tuple[str, int]:
        """A name server over UDP and TCP; it answers with `reply(query)`, None: not at all."""
        number = len(self.ports)
        datagrams, listening = map(self.stack.enter_context, sockets())
        self.ports.append(datagrams.getsockname()[1])

        async def over_udp() -> None:
            server = trio.socket.from_stdlib_socket(datagrams)
            while True:
                query, client = await server.recvfrom(65535)
                self.asked.append((number, query))
                self.asking.append(client)
                answer = reply(query)
                if answer is not None:
                    await server.sendto(answer, client)

        async def over_tcp(stream: trio.SocketStream) -> None:
            async with stream:
                query = (await stream.receive_some(65535))[2:]
                self.asked.append((number, bytes(query)))
                answer = reply(bytes(query))
                if answer is None:
                    await trio.sleep_forever()
                else:
                    await stream.send_all(len(answer).to_bytes(2, "big") + answer)

        listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening))
        self.nursery.start_soon(over_udp)
        self.nursery.start_soon(trio.serve_listeners, over_tcp, [listener])
        return "127.0.0.1", self.ports[-1]

    def serve(self, *servers: tuple[str, int]) -> None:
        """Starts the server under test; client sockets are `udp` and what `tcp` gives."""
        server = DnsServer(ZONE, Upstream(servers), self.answers.append, self.found.append)
        datagrams = self.stack.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
        datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        self.port = free_port()
        datagrams.bind(("::", self.port))
        listening = self.stack.enter_context(socket.socket(socket.AF_INET6))
        listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listening.bind(("::", self.port))
        listening.listen()
        self.nursery.start_soon(server.serve_udp, datagrams)
        self.nursery.start_soon(server.serve_tcp, listening)

    def client(self, ip: str = "127.0.0.1") -> trio.socket.SocketType:
        family = socket.AF_INET6 if ":" in ip else socket.AF_INET
        client = self.stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        client.connect((ip, self.port))
        client.setblocking(False)
        return trio.socket.from_stdlib_socket(client)

    async def udp(self, name: str, rdtype: str = "A", ip: str = "127.0.0.1") -> dns.message.Message:
        return await exchange(self.client(ip), name, rdtype)

    async def tcp(self, *names: str, rdtype: str = "A") -> list[dns.message.Message]:
        """Asks all at once over one connection."""
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        async with stream:
            queries = [dns.message.make_query(name, rdtype) for name in names]
            wires = [query.to_wire() for query in queries]
            await stream.send_all(b"".join(len(wire).to_bytes(2, "big") + wire for wire in wires))
            data, replies = b"", []
            for query in queries:
                while len(data) < 2 or len(data) < 2 + int.from_bytes(data[:2], "big"):
                    more = await stream.receive_some()
                    assert more, "closed without an answer"
                    data += more
                size = int.from_bytes(data[:2], "big")
                replies.append(dns.message.from_wire(data[2 : 2 + size]))
                assert query.is_response(replies[-1])
                data = data[2 + size :]
            return replies


async def exchange(client: trio.socket.SocketType, name: str, rdtype: str = "A") -> dns.message.Message:
    query = dns.message.make_query(name, rdtype)
    await client.send(query.to_wire())
    reply = dns.message.from_wire(await client.recv(65535))
    assert query.is_response(reply)
    return reply


@asynccontextmanager
async def new_world() -> AsyncIterator[World]:
    with ExitStack() as stack:
        async with trio.open_nursery() as nursery:
            with trio.fail_after(60):
                yield World(nursery, stack)
            nursery.cancel_scope.cancel()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with new_world() as made:
        yield made


@pytest.fixture
def jumping_clock() -> trio.testing.MockClock:
    """Jumps when nothing has happened for a while: loopback needs a moment."""
    return trio.testing.MockClock(autojump_threshold=0.05)


def records(reply: dns.message.Message) -> list[str]:
    return [record.to_text() for rrset in reply.answer for record in rrset]


@pytest.mark.parametrize("ip", ["127.0.0.1", "127.0.0.2", "::1"])
async def test_an_apps_name(world: World, ip: str) -> None:
    """The answer comes from the address that was asked: a connected socket takes no other."""
    world.serve()
    assert records(await world.udp("web", ip=ip)) == ["10.1.1.1"]


async def test_over_tcp_several_questions_at_once(world: World) -> None:
    world.serve(world.upstream(outside))
    web, example, nothing = await world.tcp("web", "example.com", "nothing")
    assert records(web) == ["10.1.1.1"]
    assert records(example) == ["198.51.100.1"]
    assert nothing.rcode() == dns.rcode.NXDOMAIN


async def test_what_is_not_ours_is_forwarded(world: World) -> None:
    world.serve(world.upstream(outside))
    assert records(await world.udp("example.com")) == ["198.51.100.1"]
    assert len(world.asked) == 1
    await world.udp("nothing.appswitch.local")
    await world.udp("nothing")
    assert len(world.asked) == 1


async def test_the_clients_id_stays_inside(world: World) -> None:
    world.serve(world.upstream(outside))
    query = dns.message.make_query("example.com", "A", id=0x1234)
    ids = set()
    client = world.client()
    for _ in range(5):
        await client.send(query.to_wire())
        assert query.is_response(dns.message.from_wire(await client.recv(65535)))
        ids.add(world.asked[-1][1][:2])
    assert len(ids) > 1
    assert all(asked[1][2:] == query.to_wire()[2:] for asked in world.asked)


async def test_a_truncated_answer_is_had_over_tcp(world: World) -> None:
    world.serve()
    short = await world.udp(REVERSE, "PTR")
    assert short.flags & dns.flags.TC
    (whole,) = await world.tcp(REVERSE, rdtype="PTR")
    assert len(records(whole)) == MANY


async def test_an_upstreams_truncation_is_passed_on(world: World) -> None:
    def truncated(query: bytes) -> bytes:
        reply = dns.message.make_response(dns.message.from_wire(query))
        reply.flags |= dns.flags.TC
        return reply.to_wire()

    world.serve(world.upstream(truncated))
    assert (await world.udp("example.com")).flags & dns.flags.TC


async def test_no_upstream_at_all(world: World) -> None:
    world.serve()
    assert (await world.udp("example.com")).rcode() == dns.rcode.SERVFAIL
    (reply,) = await world.tcp("example.com")
    assert reply.rcode() == dns.rcode.SERVFAIL


async def test_an_upstream_that_refuses_is_passed_over_at_once(world: World) -> None:
    """ICMP says so: no need to wait for the timeout."""
    world.serve(("127.0.0.1", free_port()), world.upstream(outside))
    with trio.fail_after(UPSTREAM_TIMEOUT * 0.9):
        assert records(await world.udp("example.com")) == ["198.51.100.1"]
        (reply,) = await world.tcp("example.com")
        assert records(reply) == ["198.51.100.1"]


async def test_an_upstream_that_breaks_the_connection_is_passed_over(world: World) -> None:
    breaking = world.stack.enter_context(socket.create_server(("127.0.0.1", 0)))

    async def reset(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0" + bytes(4))
        await stream.aclose()

    listener = trio.SocketListener(trio.socket.from_stdlib_socket(breaking))
    world.nursery.start_soon(trio.serve_listeners, reset, [listener])
    world.serve(breaking.getsockname(), world.upstream(outside))
    (reply,) = await world.tcp("example.com")
    assert records(reply) == ["198.51.100.1"]


async def test_answers_with_a_wrong_id_are_not_believed(world: World) -> None:
    def wrong(query: bytes) -> bytes:
        return bytes([query[0] ^ 1]) + outside(query)[1:]

    world.serve(world.upstream(wrong))
    with trio.move_on_after(0.2) as scope:
        await world.udp("example.com")
    assert scope.cancelled_caught


async def test_a_stranger_can_t_answer_in_the_upstreams_place(world: World) -> None:
    stranger = world.stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    stranger.bind(("127.0.0.2", 0))
    real = world.upstream(lambda query: None)
    world.serve(real)
    client = world.client()
    await client.send(dns.message.make_query("example.com", "A").to_wire())
    while not world.asked:
        await trio.lowlevel.checkpoint()
    stranger.sendto(outside(world.asked[0][1]), world.asking[0])
    with trio.move_on_after(0.2) as scope:
        await client.recv(65535)
    assert scope.cancelled_caught


@pytest.mark.parametrize("junk", [b"", b"x", b"\0" * 12, b"\xff" * 600, bytes(65000)])
async def test_junk_doesn_t_disturb_it(world: World, junk: bytes) -> None:
    world.serve(world.upstream(outside))
    client = world.client()
    await client.send(junk)
    stream = await trio.open_tcp_stream("127.0.0.1", world.port)
    async with stream:
        await stream.send_all(len(junk).to_bytes(2, "big") + junk)
        await stream.send_all(b"\0\5x")  # and an unfinished one
    assert records(await world.udp("web")) == ["10.1.1.1"]
    (reply,) = await world.tcp("web")
    assert records(reply) == ["10.1.1.1"]


@pytest.mark.parametrize("junk", [b"", b"short", b"\xff" * 40])
async def test_an_upstreams_junk_doesn_t_disturb_it(world: World, junk: bytes) -> None:
    world.serve(world.upstream(lambda query: query[:2] + junk if junk else b""))
    client = world.client()
    await client.send(dns.message.make_query("example.com", "A").to_wire())
    (reply,) = await world.tcp("web")
    assert records(reply) == ["10.1.1.1"]
    assert records(await world.udp("web")) == ["10.1.1.1"]


async def test_a_client_that_goes_early(world: World) -> None:
    answered = trio.Event()

    def late(query: bytes) -> bytes:
        answered.set()
        return outside(query)

    world.serve(world.upstream(late))
    stream = await trio.open_tcp_stream("127.0.0.1", world.port)
    wire = dns.message.make_query("example.com", "A").to_wire()
    await stream.send_all((len(wire).to_bytes(2, "big") + wire) * 20)
    await stream.aclose()
    await answered.wait()
    assert records(await world.udp("web")) == ["10.1.1.1"]


async def test_many_at_once(world: World) -> None:
    """More than it has under way at a time; a slow upstream keeps no one from the rest for ever."""
    world.serve(world.upstream(outside))
    got: list[str] = []

    async def one(number: int) -> None:
        got.extend(records(await world.udp(f"host-{number}.example.com")))

    async with trio.open_nursery() as nursery:
        for number in range(150):
            nursery.start_soon(one, number)
    assert got == ["198.51.100.1"] * 150


def silent(_: bytes) -> None:
    return None


Ask = Callable[[World], Awaitable[dns.message.Message]]


async def ask_udp(world: World) -> dns.message.Message:
    return await world.udp("example.com")


async def ask_tcp(world: World) -> dns.message.Message:
    return (await world.tcp("example.com"))[0]


@pytest.mark.parametrize("ask", [ask_udp, ask_tcp])
@pytest.mark.parametrize("servers", [1, 2, 3])
def test_silent_upstreams_are_a_server_failure(jumping_clock: trio.testing.MockClock, ask: Ask, servers: int) -> None:
    """Each is asked twice; three is what a resolv.conf may name."""

    async def main() -> None:
        async with new_world() as world:
            world.serve(*(world.upstream(silent) for _ in range(servers)))
            start = trio.current_time()
            assert (await ask(world)).rcode() == dns.rcode.SERVFAIL
            assert trio.current_time() - start >= UPSTREAM_TIMEOUT * 2 * servers - 0.1
            assert [number for number, _ in world.asked] == [*range(servers)] * 2

    trio.run(main, clock=jumping_clock)


@pytest.mark.parametrize("ask", [ask_udp, ask_tcp])
def test_the_next_upstream_is_asked_when_one_is_silent(jumping_clock: trio.testing.MockClock, ask: Ask) -> None:
    async def main() -> None:
        async with new_world() as world:
            world.serve(world.upstream(silent), world.upstream(outside))
            assert records(await ask(world)) == ["198.51.100.1"]
            assert [number for number, _ in world.asked] == [0, 1]

    trio.run(main, clock=jumping_clock)


def test_a_silent_tcp_client_is_not_kept(jumping_clock: trio.testing.MockClock) -> None:
    """RFC 7766 6.2.3; whether it has said nothing yet or half a question."""

    async def main() -> None:
        async with new_world() as world:
            world.serve()
            for begun in (b"", b"\0", b"\0\x20half"):
                stream = await trio.open_tcp_stream("127.0.0.1", world.port)
                async with stream:
                    if begun:
                        await stream.send_all(begun)
                    with trio.fail_after(30):
                        assert await stream.receive_some() == b""

    trio.run(main, clock=jumping_clock)


def test_a_silent_upstream_doesn_t_keep_others_waiting(jumping_clock: trio.testing.MockClock) -> None:
    async def main() -> None:
        async with new_world() as world:
            world.serve(world.upstream(silent))
            client = world.client()
            for _ in range(10):
                await client.send(dns.message.make_query("example.com", "A").to_wire())
            start = trio.current_time()
            assert records(await world.udp("web")) == ["10.1.1.1"]
            assert trio.current_time() == start

    trio.run(main, clock=jumping_clock)


async def test_what_names_outside_stand_for_is_told_before_the_client_is() -> None:
    async with new_world() as here:
        here.serve(here.upstream(outside))
        await here.udp("www.example.com")
        assert here.found == [Found("www.example.com", (IPv4Address("198.51.100.1"),), 60)]
        await here.tcp("web", "other.example.com")
        assert [each.name for each in here.found] == ["www.example.com", "other.example.com"], "not those of apps"


async def test_a_question_of_our_own() -> None:
    async with new_world() as here:
        upstream = Upstream([here.upstream(outside)])
        assert await look_up(upstream, "www.example.com") == Found(
            "www.example.com", (IPv4Address("198.51.100.1"),), 60
        )
        assert await look_up(upstream, "a" * 64 + ".example") is None
        nobody = Upstream([here.upstream(lambda query: query[:2] + b"\x81\x83" + query[4:])])
        assert await look_up(nobody, "www.example.com") is None
