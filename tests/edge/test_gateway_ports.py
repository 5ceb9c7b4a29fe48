"""The ports of a gateway, and clients that come through them to listeners of apps here."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import trio

from appswitch.core.exposing import CHOICE, Gateway
from appswitch.core.limits import Limits
from appswitch.core.policy import Action, Policy, Rule, Selector
from appswitch.edge import gateway_ports
from appswitch.edge.events import Filter
from appswitch.edge.express import Express
from appswitch.edge.gate import Gate
from appswitch.edge.gateway_ports import choose_addresses
from appswitch.errors import AppSwitchError
from appswitch.host.cookies import cookie_of
from appswitch.model import App, AppRecord, Expose, Exposure, GatewayRecord, Kind, ListenerRecord, Node
from appswitch.wire import socknames
from appswitch.wire.proxy import encode_head
from tests.edge.gateway_world import (
    DB,
    PATIENCE,
    V4,
    V6,
    WEB,
    World,
    accept,
    all_are_accepted,
    connect,
    is_refused,
    running,
    settled,
)
from tests.harness import free_port

MANY = 32


@pytest.fixture(params=["express", "one by one"])
def world(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    with ExitStack() as stack:
        made = World(tmp_path, stack)
        made.ports.express = made.express if request.param == "express" else None
        yield made


async def test_the_accepted_socket_is_the_app_s(world: World) -> None:
    port = free_port()
    app = world.new_app(Expose(80, port))
    listening = world.serve(app)
    async with running(world):
        with connect(port) as client:
            end, name = await accept(listening)
            with end:
                assert end.getpeername() == client.getsockname()
                assert name.source == (V4, client.getsockname()[1])
                assert name.dest == (V4, port), "as the client asked for it"
                assert world.names.find(cookie_of(end), app) is not None, "who has got it from another program may ask"
                assert world.names.find(cookie_of(end), world.new_app(name="db")) is None
                end.sendall(b"hello")
                assert client.recv(9) == b"hello"
            assert client.recv(9) == b"", "nobody else has it open"
    (event,) = world.events.recent(Filter(frozenset({Kind.CONNECT})))
    assert (event.app, event.server, event.source) == (None, app, name.source)


async def test_the_port_is_the_service_s_before_it_listens(world: World) -> None:
    """A client is refused meanwhile, as by a program that doesn't listen."""
    port = free_port()
    app = world.new_app(Expose(80, port))
    async with running(world):
        assert world.records() == [GatewayRecord(Exposure(WEB, 80, port), ((V4, port), (V6, port)))]
        assert is_refused(port)
        listening = world.serve(app)
        await settled()
        for _ in range(2):
            connect(port).close()
            (await accept(listening))[0].close()
        world.close(listening)
        await settled()
        assert is_refused(port)
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind((str(V4), port))
        world.serve(app)
        await settled()
        assert not is_refused(port)
        world.table.remove_app(app.id)
        world.apps.services_changed()
        await settled()
        assert is_refused(port)
        assert not world.records()
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind((str(V4), port))


async def test_a_port_that_a_client_has_again(world: World) -> None:
    """Its kernel may give it anew at once; that the earlier connection has gone we only learn later."""
    port = free_port()
    listening = world.serve(world.new_app(Expose(80, port)))
    async with running(world):
        with connect(port) as client:
            first = client.getsockname()
            (await accept(listening))[0].close()
            assert client.recv(1) == b"", "whoever closes last has no TIME_WAIT"
        with socket.create_connection((str(V4), port), PATIENCE, source_address=first):
            end, name = await accept(listening)
            end.close()
            assert name.source == (V4, first[1])


async def test_ipv6_clients_reach_who_listens_there(world: World) -> None:
    port = free_port()
    app = world.new_app(Expose(80, port))
    listening = world.serve(app)
    async with running(world):
        assert is_refused(port, str(V6))
        assert not is_refused(port)
        (await accept(listening))[0].close()
        world.close(listening)
        listening = world.serve(app, "::", 6)
        await settled()
        for ip in (V4, V6):
            with connect(port, str(ip)) as client:
                end, name = await accept(listening)
                end.close()
                assert name.source == (ip, client.getsockname()[1])


async def test_apps_that_expose_one_service_take_turns(world: World) -> None:
    port = free_port()
    listening = [world.serve(world.new_app(Expose(80, port))) for _ in range(3)]
    world.serve(world.new_app())  # not exposed
    async with running(world):
        for _ in range(2):
            for each in listening:
                connect(port).close()
                (await accept(each))[0].close()
        world.apps.listener_gone(next(iter(world.table.listeners.values())))
        for _ in listening[1:]:
            connect(port).close()
        for each in listening[1:]:
            (await accept(each))[0].close()


async def test_a_drained_instance_gets_no_clients(world: World) -> None:
    port = free_port()
    apps = [world.new_app(Expose(80, port)) for _ in range(2)]
    listening = [world.serve(app) for app in apps]
    async with running(world):
        world.table.drain(apps[:1])
        world.apps.services_changed()
        await settled()
        for _ in range(2):
            connect(port).close()
            (await accept(listening[1]))[0].close()
        world.table.drain(apps[1:])
        world.apps.services_changed()
        await settled()
        assert is_refused(port)
        world.table.drain(apps, False)
        world.apps.services_changed()
        await settled()
        assert not is_refused(port)


async def test_what_the_express_way_leaves_alone(world: World) -> None:
    app = world.new_app(Expose(80, 8080))
    world.serve(app)
    waiting = world.stack.enter_context(gateway_ports.bind(V4, 0))
    waiting.listen()

    async def is_taken() -> bool:
        """Whether it waits for clients."""
        world.apps.services_changed()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel_when_all_wait, scope)
                assert await world.express.hand_over(waiting, Exposure(WEB, 80, 8080)) is None
                return False
        return True

    async def cancel_when_all_wait(scope: trio.CancelScope) -> None:
        await settled()
        scope.cancel()

    assert await is_taken()
    for rule in (
        Rule("cidr", Action.DENY, Selector(cidrs=(ip_network("192.0.2.0/24"),))),
        Rule("audit", Action.AUDIT),
        Rule("deny", Action.DENY),
    ):
        world.policing.policy = Policy((rule,))
        assert not await is_taken()
    world.policing.policy = Policy((Rule("names-nobody", Action.ALLOW),))
    assert await is_taken()
    for expose, tags in ((Expose(80, 8080, proxy=True), ()), (Expose(80, 8080), (("balance", "least-connections"),))):
        other = world.new_app(expose, tags=tags)
        world.serve(other)
        assert not await is_taken()
        world.table.remove_app(other.id)
    assert await is_taken()
    far = App(1, WEB, "b", "web", (("prefer", "any"),), exposes=(Expose(80, 8080),))
    world.table.put_remote("b", "1", AppRecord(far))
    world.table.put_remote("b", "1/1", ListenerRecord(1, 4, WEB, 80))
    assert not await is_taken()


async def test_many_at_once_take_turns(world: World) -> None:
    port = free_port()
    heavy = world.serve(world.new_app(Expose(80, port), tags=(("weight", "3"),)), backlog=99)
    light = world.serve(world.new_app(Expose(80, port)), backlog=99)
    async with running(world):
        clients = [connect(port) for _ in range(MANY)]
        sources = {}
        for listening, part in ((heavy, 3), (light, 1)):
            for _ in range(MANY * part // 4):
                end, name = await accept(listening)
                sources[name.source[1]] = end
        assert set(sources) == {each.getsockname()[1] for each in clients}
        for each in [*clients, *sources.values()]:
            each.close()


async def test_a_full_queue_is_waited_for(world: World) -> None:
    port = free_port()
    listening = world.serve(world.new_app(Expose(80, port)), backlog=0)
    async with running(world):
        clients = [connect(port) for _ in range(5)]
        seen = set()
        for _ in clients:
            end, _ = await accept(listening)
            with end:
                seen.add(end.getpeername()[1])
        assert seen == {each.getsockname()[1] for each in clients}
        for each in clients:
            each.close()


async def test_whoever_goes_while_it_waits_is_passed_over(world: World) -> None:
    port = free_port()
    listening = world.serve(world.new_app(Expose(80, port)), backlog=0)
    async with running(world):
        first = connect(port)
        gone = connect(port)
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
        await all_are_accepted(world)
        gone.close()
        with world.events.subscribe(Filter(frozenset({Kind.REFUSE}))) as refused:
            await refused.batch()
        (await accept(listening))[0].close()
        first.close()


async def test_a_listener_that_has_just_closed_resets_its_client(world: World) -> None:
    port = free_port()
    listening = world.serve(world.new_app(Expose(80, port)))
    async with running(world):
        listening.close()
        with connect(port) as client:
            client.setblocking(False)
            await trio.lowlevel.wait_readable(client)
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        (event,) = world.events.recent(Filter(frozenset({Kind.REFUSE})))
        assert (event.error, event.port) == (errno.ECONNREFUSED, port)


async def test_clients_that_say_nothing_hold_up_nobody(world: World) -> None:
    port = free_port()
    listening = world.serve(world.new_app(Expose(80, port)))
    world.ports.express = None
    world.ports.gate = Gate(Limits(first_byte=0.2))
    async with running(world):
        silent = [connect(port) for _ in range(gateway_ports.AT_ONCE + 10)]
        with connect(port) as client:
            client.sendall(b"hello")
            end, name = await accept(listening)
            with end:
                assert name.source[1] == client.getsockname()[1]
                assert end.recv(9) == b"hello"
        for each in silent:
            with each:
                each.setblocking(False)
                await trio.lowlevel.wait_readable(each)
                with pytest.raises(ConnectionResetError):
                    each.recv(1)


async def test_a_program_that_wants_a_proxy_head_has_it_first(world: World) -> None:
    port = free_port()
    listening = world.serve(world.new_app(Expose(80, port, proxy=True)))
    async with running(world):
        with connect(port) as client:
            client.sendall(b"hello")
            end, _ = await trio.to_thread.run_sync(listening.accept)
            with end:
                end.settimeout(PATIENCE)
                name = socknames.read_client_name(end.getpeername())
                source, dest = (V4, client.getsockname()[1]), (V4, port)
                assert name is not None
                assert (name.source, name.dest) == (source, dest)
                expected = encode_head(source, dest) + b"hello"
                data = b""
                while len(data) < len(expected):
                    data += await trio.to_thread.run_sync(end.recv, 100)
                assert data == expected
                end.sendall(b"answer")
            assert client.recv(9) == b"answer"


async def test_a_port_that_another_program_has(world: World) -> None:
    with socket.create_server((str(V4), 0)) as taken:
        port = taken.getsockname()[1]
        app = world.new_app(Expose(80, port))
        world.serve(app)
        async with running(world):
            failed = [GatewayRecord(Exposure(WEB, 80, port), error=f"port {port} is taken by another program")]
            assert world.ports.records_for(app) == world.records() == failed
            taken.close()
            assert world.ports.records_for(app)[0].places == ((V4, port), (V6, port))
            await settled()
            assert not is_refused(port)


async def test_where_clients_find_it_can_t_be_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """For want of a descriptor, say: the gateway goes on, and tells the address that it is known by."""

    def none_left(*_: object) -> socket.socket:
        raise OSError(errno.EMFILE, "too many")

    with ExitStack() as stack:
        world = World(tmp_path, stack)
        world.ports.gateway = Gateway(Node("n1", gateway=True, address="10.0.0.9"), gateway_ports.OwnAddresses())
        monkeypatch.setattr(socket, "socket", none_left)
        shown = [world.ports._shown(each) for each in gateway_ports.ANYWHERE]
        monkeypatch.undo()
    assert shown == [ip_address("10.0.0.9"), ip_address("::")]


async def test_a_port_that_has_become_free_is_opened(world: World, autojump_clock: trio.testing.MockClock) -> None:
    with socket.create_server((str(V4), 0)) as taken:
        port = taken.getsockname()[1]
        world.serve(world.new_app(Expose(80, port)))
        async with running(world):
            taken.close()
            await trio.sleep(gateway_ports.RETRY_EVERY + 0.1)
            assert not is_refused(port)


async def test_a_port_that_another_program_was_quicker_to_listen_at(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    """While ours is only bound, another one may be, too, if it says so (SO_REUSEADDR)."""
    port = free_port()
    app = world.new_app(Expose(80, port))
    async with running(world):
        with socket.create_server((str(V4), port)):
            world.serve(app)
            await settled()
            assert world.records()[0].error == f"port {port} is taken by another program"
        await trio.sleep(gateway_ports.RETRY_EVERY + 0.1)
        assert world.records()[0].places
        assert not is_refused(port)


async def test_a_port_that_is_lost_between_two_instances(
    world: World, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    port = free_port()
    app = world.new_app(Expose(80, port))
    listening = world.serve(app)
    async with running(world):
        assert not is_refused(port)

        def lost(*_: object) -> socket.socket:
            raise OSError(errno.EADDRINUSE, "Address already in use")

        with monkeypatch.context() as patched:
            patched.setattr(gateway_ports, "new_socket", lost)
            world.close(listening)
            await settled()
            assert world.records()[0].error == f"port {port} is taken by another program"
        world.serve(app)
        await trio.sleep(gateway_ports.RETRY_EVERY + 0.1)
        assert not is_refused(port)


async def test_trouble_with_accepting_passes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """accept(2): it fails with what has befallen the connection, too."""
    port = free_port()
    listening = world.serve(world.new_app(Expose(80, port)))
    failures = [OSError(errno.ENETDOWN, "Network is down"), OSError(errno.EMFILE, "Too many open files")]
    accept_really, hand_over_really = socket.socket.accept, Express.hand_over

    def fail(really: Any) -> Any:
        def failing(*arguments: Any) -> Any:
            if failures and getattr(arguments[0], "family", None) is not socket.AF_UNIX:
                raise failures.pop()
            return really(*arguments)

        return failing

    monkeypatch.setattr(socket.socket, "accept", fail(accept_really))
    monkeypatch.setattr(Express, "hand_over", fail(hand_over_really))
    async with running(world):
        with connect(port):
            (await accept(listening))[0].close()
    assert not failures


async def test_a_port_that_an_older_service_has(world: World) -> None:
    port = free_port()
    web = world.new_app(Expose(80, port))
    async with running(world):
        db = world.new_app(Expose(5432, port), name="db")
        await settled()
        assert world.ports.records_for(db)[0].error == f"port {port} is taken by 10.1.1.1 port 80"
        assert world.ports.records_for(web)[0].places
        world.table.remove_app(web.id)
        world.apps.services_changed()
        await settled()
        assert world.ports.records_for(db)[0].places


async def test_an_older_claim_that_comes_later_has_the_port(world: World) -> None:
    """As all nodes see it, once they see each other again."""
    port = free_port()
    web = world.new_app(Expose(80, port))
    async with running(world):
        assert world.ports.records_for(web)[0].places
        older = App(1, DB, "n2", "db", exposes=(Expose(5432, port),), started=1.0)
        world.table.put_remote("n2", "1", AppRecord(older))
        world.apps.note_change()
        await settled()
        assert world.ports.records_for(web)[0].error == f"port {port} is taken by 10.1.1.2 port 5432"
        assert {each.exposure.ip for each in world.records() if each.places} == {DB}


async def test_a_port_of_the_gateway_s_choice(world: World, tmp_path: Path) -> None:
    web, db = world.new_app(Expose(80)), world.new_app(Expose(80), name="db")
    async with running(world):
        (first,), (second,) = world.ports.records_for(web), world.ports.records_for(db)
        ports = {each.places[0][1] for each in (first, second)}
        assert len(ports) == 2
        assert ports <= set(CHOICE)
    again = World(tmp_path / "again", world.stack)
    async with running(again):
        assert again.ports.records_for(again.new_app(Expose(80))) == [first], "after a restart, too"


async def test_a_port_of_its_choice_that_is_taken(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server((str(V4), 0)) as taken:
        free = free_port()
        choice = [taken.getsockname()[1], free]
        monkeypatch.setattr(gateway_ports, "choice_of_ports", lambda _exposure: iter(choice))
        web, db = world.new_app(Expose(80)), world.new_app(Expose(80), name="db")
        async with running(world):
            assert world.ports.records_for(web)[0].places == ((V4, free), (V6, free))
            assert world.ports.records_for(db)[0].error == "no port is free"


async def test_what_is_said_to_the_others_is_said_once(world: World) -> None:
    app = world.new_app(Expose(80, free_port()))
    async with running(world):
        assert "g0" in world.table.dirty
        world.table.dirty.clear()
        world.serve(app)
        world.ports.settle()
        await settled()
        assert not {each for each in world.table.dirty if each.startswith("g")}


async def test_nothing_is_left_open(world: World) -> None:
    port = free_port()
    world.serve(world.new_app(Expose(80, port)))
    async with running(world):
        assert not is_refused(port)
    assert is_refused(port)


def test_where_a_gateway_listens() -> None:
    assert choose_addresses(["127.0.0.1", "[::1]", "127.0.0.1"]) == (V4, V6)
    assert ip_address("0.0.0.0") in choose_addresses([])
    for wrong in ("192.0.2.77", "localhost", ""):
        with pytest.raises(AppSwitchError) as caught:
            choose_addresses([wrong])
        assert caught.value.reason == "bad-gateway-bind"
