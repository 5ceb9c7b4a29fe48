"""The control socket: `spawn` and the command line's questions (wire/control.py has the protocol).

The file system says who may use it: its mode is 0600. Apps of that user, be it from their namespaces or from others
that they make, may only ask: what changes something is done for callers in the host's. `spawn` has to call from the
namespace that it has just made; that it comes from outside is shown by a ticket that it got there.
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Callable

import structlog
import trio
from attrs import Factory, define, field

from appswitch.core.exposing import parse_expose
from appswitch.core.service_table import ServiceTable, plain_name
from appswitch.core.why import address_of
from appswitch.edge import namespaces
from appswitch.edge.apps import Apps, Credentials, calls_from, credentials_of, read_identity
from appswitch.edge.dns import DnsServer
from appswitch.edge.draining import Draining
from appswitch.edge.events import Filter
from appswitch.edge.exposing import Exposing
from appswitch.edge.name_servers import NameServers
from appswitch.edge.namespaces import Namespace
from appswitch.edge.questions import Questions, split_service
from appswitch.edge.succession import Succession
from appswitch.errors import AppSwitchError
from appswitch.model import App, AppState, Event, Kind
from appswitch.wire import control
from appswitch.wire.externals import Kept

log = structlog.get_logger()


async def _no_sharing(_app: App) -> None:
    pass


@define
class ControlServer:
    """Serves the control socket of one host."""

    apps: Apps
    dns: Callable[[App], DnsServer]
    """Makes the DNS server of a new app."""
    netns: int
    """The cookie of our own network namespace."""
    questions: Questions
    exposing: Exposing = field(default=Factory(lambda self: Exposing(self.questions.nodes), takes_self=True))
    share_dns: Callable[[App], Awaitable[None]] = _no_sharing
    """Makes room for an app that is a DNS server itself."""
    succession: Succession | None = None
    connections: int = 0
    """How many are open."""
    _tickets: set[str] = field(factory=set)
    _opening: int = 0
    """Apps whose ports are being opened."""
    _accepting: trio.CancelScope = field(factory=trio.CancelScope)

    @property
    def table(self) -> ServiceTable:
        return self.apps.table

    async def serve(self, listening: socket.socket) -> None:
        """Accepts connections, until `finish`. listening: a Unix stream socket."""
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening))
        async with trio.open_nursery() as nursery:
            with self._accepting:
                await trio.serve_listeners(self._serve_connection, [listener], handler_nursery=nursery)

    async def _serve_connection(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        self.apps.note_change()
        tickets: set[str] = set()
        try:
            await self._converse(stream, tickets)
        except* (trio.BrokenResourceError, OSError) as errors:
            log.debug("control connection broke", error=str(errors.exceptions[0]))
        except* Exception:  # a fault of ours: this caller's connection ends, the others go on
            log.exception("control call failed")
        finally:
            self._tickets -= tickets
            self.connections -= 1
            self.apps.note_change()

    async def _converse(self, stream: trio.SocketStream, tickets: set[str]) -> None:
        """tickets: those given on this connection."""
        caller = credentials_of(stream.socket)
        inside = not calls_from(caller, self.netns)
        while True:
            line, fds = await _read_line(stream.socket)
            with contextlib.ExitStack() as passed:
                for fd in fds:
                    passed.callback(os.close, fd)
                if not line:
                    return
                try:
                    call = control.decode(line)
                    if (
                        inside
                        and not isinstance(call, control.Question | control.Resume)
                        and not self._takes_ticket(call)
                    ):
                        raise self._from_inside(caller)
                except AppSwitchError as error:
                    await stream.send_all(control.encode_error(error))
                    return
                if isinstance(call, control.Spawn):
                    await self._spawn(stream, call, fds, passed)
                    return
                if isinstance(call, control.Resume):
                    await self._resume(stream, call, fds, passed)
                    return
                if isinstance(call, control.TakeOver) and self.succession is not None:
                    await self.succession.hand_over(stream, call, caller.uid)
                    return
                if isinstance(call, control.Ticket):
                    tickets.add(ticket := secrets.token_hex(16))
                    self._tickets.add(ticket)
                    await stream.send_all(control.encode_ok(ticket))
                    continue
                if isinstance(call, control.Observe) and call.follow:
                    await self._follow(stream, call)
                    return
            try:
                answer = control.encode_ok(await self._answer(call, stream))
            except AppSwitchError as error:
                answer = control.encode_error(error)
            await stream.send_all(answer)

    async def finish(self) -> None:
        """Until all who are about to make an app have made it; who calls after that is our successor's."""
        try:
            while self._tickets or self._opening:
                await self.apps.changed()
        finally:  # when it takes too long, too
            self._accepting.cancel()

    async def _answer(self, call: control.Call, stream: trio.SocketStream) -> object:
        match call:
            case control.Hello():
                return None
            case control.Ps():
                return await self.questions.ps()
            case control.Services():
                return await self.questions.services()
            case control.Nodes():
                return await self._list_nodes(call, stream.socket)
            case control.Connections():
                return await self.questions.connections()
            case control.Resolve(name=name):
                return self.questions.resolve(name)
            case control.Why(client=client, dest=dest):
                return [await self.questions.why(client, dest)]
            case control.WaitFor(services=services, timeout=timeout):
                return await self._wait_for(services, math.inf if timeout is None else timeout, stream.socket)
            case control.Drain():
                return await self._drain(call, stream.socket)
            case control.Externals():
                return await self.questions.list_externals()
            case control.AddExternal():
                return await self._add_external(call)
            case control.RemoveExternal(name=name):
                self.questions.externals.remove(plain_name(name))
                return []
            case control.Observe():
                self.apps.events.take()
                return [control.event_row(each) for each in self._recent(call)]
            case control.Spawn() | control.Resume() | control.Ticket() | control.TakeOver():
                raise AssertionError("handled by the caller")

    async def _add_external(self, call: control.AddExternal) -> list[dict[str, object]]:
        kept = Kept(call.name, tuple(call.backends), call.ip, tuple(call.tags), time.time())
        app = self.questions.externals.add(kept)
        return [control.external_row(each, {}) for each in self.table.listeners_of(app)]

    async def _list_nodes(self, call: control.Nodes, connection: trio.socket.SocketType) -> list[dict[str, object]]:
        if call.wait:
            with trio.move_on_after(math.inf if call.timeout is None else call.timeout) as waiting:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_break_when_closed, connection)
                    await self.questions.nodes.until_agreed()
                    nursery.cancel_scope.cancel()
            if waiting.cancelled_caught:
                reason = f"no agreement after {call.timeout:g} s: {self.questions.nodes.obstacle}"
                raise AppSwitchError("no-agreement", reason,
                                     "`appswitch nodes` shows how far each is, the log of `serve` why")  # fmt: skip
        return self.questions.list_nodes()

    async def _wait_for(self, services: list[str], timeout: float, connection: trio.socket.SocketType) -> list[str]:  # noqa: ASYNC109
        """What is still missing after `timeout` seconds; nothing, as soon as all are served at once."""
        for text in services:
            split_service(text)  # the error comes at once
        missing = self._missing(services)
        with trio.move_on_after(timeout):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_break_when_closed, connection)
                while missing:
                    await self.apps.changed()
                    missing = self._missing(services)
                nursery.cancel_scope.cancel()
        return missing

    def _missing(self, services: list[str]) -> list[str]:
        return [text for text in services if not self._is_served(*split_service(text))]

    async def _drain(self, call: control.Drain, connection: trio.socket.SocketType) -> list[dict[str, object]]:
        draining = Draining(self.apps, self.questions.snapshot)
        apps = draining.undo(call.app) if call.undo else draining.start(call.app)
        if call.wait and not call.undo:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_break_when_closed, connection)
                error = await draining.wait(apps, math.inf if call.timeout is None else call.timeout)
                nursery.cancel_scope.cancel()
            if error is not None:
                raise error
        left = await draining.left(apps)
        state = AppState.UP if call.undo else AppState.DRAINING
        return [control.drain_row(app, state, left[app.id]) for app in apps]

    def _is_served(self, host: str, port: int) -> bool:
        ip = address_of(self.table, host)
        return ip is not None and any(each.port == port for each in self.table.services(self.table.apps_at(ip)))

    def _recent(self, call: control.Observe) -> list[Event]:
        recent = self.apps.events.recent(_filter(call))
        return recent if call.tail is None else recent[max(0, len(recent) - call.tail) :]

    async def _follow(self, stream: trio.SocketStream, call: control.Observe) -> None:
        """Answers with event after event until the caller goes."""
        with self.apps.events.subscribe(_filter(call)) as subscription:
            if subscription.wanted.wants(Kind.CONNECT) or subscription.wanted.wants(Kind.RESOLVE):
                # Capabilities and names that are kept end here: from now on it is us who are asked (edge/calls.py).
                self.apps.epoch.advance()
            batch = self._recent(call)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_break_when_closed, stream.socket)
                while True:
                    await stream.send_all(b"".join(control.encode_ok(control.event_row(each)) for each in batch))
                    batch = await subscription.batch()

    async def _spawn(
        self, stream: trio.SocketStream, call: control.Spawn, fds: list[int], passed: contextlib.ExitStack
    ) -> None:
        """Makes the app, serves its DNS, and keeps it until nothing of it is left. passed: closes `fds`."""
        with contextlib.ExitStack() as stack:
            try:
                namespaces.check_room(stream.socket.fileno())
                namespace = namespaces.adopt(fds)
                passed.close()  # or an app would take up four more descriptors as long as it lives
                stack.callback(namespace.close)
                app, token = self._new_app(stream.socket, call)
                with self.apps.hold(app):
                    self._opening += 1
                    try:
                        exposed = await self.exposing.open(app) if app.exposes else []
                    finally:
                        self._opening -= 1
            except AppSwitchError as error:
                await stream.send_all(control.encode_error(error))
                return
            answer = {"app": app.id, "ip": str(app.ip), "alias": str(app.alias), "token": token, "exposed": exposed}
            await self._keep(stream, app, namespace, answer)

    async def _resume(
        self, stream: trio.SocketStream, call: control.Resume, fds: list[int], passed: contextlib.ExitStack
    ) -> None:
        """Takes an app back from its keeper (host/keeper.py). passed: closes `fds`."""
        caller = credentials_of(stream.socket)
        with contextlib.ExitStack() as stack:
            try:
                namespace = namespaces.adopt(fds)
                passed.close()
                stack.callback(namespace.close)
                app = self.apps.identify(caller, _read_token(call.token))
                if app is None:
                    raise AppSwitchError("unknown-app", "no app is known that calls from there or has this token")
                if app.netns and app.id in self.apps.namespaces:
                    raise AppSwitchError("taken", f"app {app.number} has its keeper")
                if app.netns and (not fds or namespace.netns != caller.netns):
                    raise AppSwitchError("bad-request", "the sockets that came along are of another namespace")
            except AppSwitchError as error:
                log.debug("an app wasn't taken back", pid=caller.pid, uid=caller.uid, reason=error.message)
                await stream.send_all(control.encode_error(error))
                return
            await self._keep(stream, app, namespace, {"app": app.id}, back=app.netns)

    async def _take_back(self, app: App, namespace: Namespace) -> None:
        """What its keeper has to be there for."""
        try:
            await namespace.receivers()
            self.apps.receivers_back(app)
            if all(each.type != socket.SOCK_DGRAM for each in namespace.dns):
                await self.share_dns(app)
        except OSError as error:
            log.warning("an app's UDP isn't known any more", app=app.number, reason=error.strerror)

    async def _keep(
        self, stream: trio.SocketStream, app: App, namespace: Namespace, answer: dict[str, object], back: bool = False
    ) -> None:
        """Until nothing of the app is left. back: our predecessor had it, and what is in its namespace."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.apps.hold(app))
            async with trio.open_nursery() as nursery:
                dns = self.dns(app)
                name_servers = NameServers(namespace, dns.serve_udp, nursery)
                if app.netns:
                    self.apps.namespaces[app.id] = namespace
                    stack.callback(self.apps.namespaces.pop, app.id)
                    self.apps.name_servers[app.id] = name_servers
                    stack.callback(self.apps.name_servers.pop, app.id)
                    self.apps.note_change()
                for each in namespace.dns:
                    if each.type == socket.SOCK_STREAM:
                        nursery.start_soon(dns.serve_tcp, each)
                await stream.send_all(control.encode_ok(answer))
                if back:
                    await self._take_back(app, namespace)
                await _until_closed(stream.socket)
                # Programs that go on after the main one may still ask for names.
                await self.apps.until_ended(app)
                nursery.cancel_scope.cancel()

    def _takes_ticket(self, call: control.Call) -> bool:
        """Whether it may come from inside, now that it does."""
        if not isinstance(call, control.Spawn) or not call.netns or call.ticket not in self._tickets:
            return False
        self._tickets.remove(call.ticket)
        return True

    def _from_inside(self, caller: Credentials) -> AppSwitchError:
        owner = self.apps.owner_of(caller.netns)
        where = f"app {owner.number}" if owner is not None else "another network namespace"
        hint = "call it from the network namespace that the trap handler is in"
        return AppSwitchError("foreign-namespace", f"this can't be done from inside {where}", hint)

    def _new_app(self, connection: trio.socket.SocketType, call: control.Spawn) -> tuple[App, str]:
        caller = credentials_of(connection)
        if call.netns and caller.netns == self.netns:
            raise AppSwitchError("no-namespace", "spawn called from the host's network namespace", "use --no-netns")
        owner = self.apps.owner_of(caller.netns)
        if owner is not None and owner.id in self.table.apps:
            raise AppSwitchError("taken", f"this namespace is app {owner.number}'s already")
        identity = read_identity(call.name, call.ip, call.tags, call.bypasses, tcp=call.tcp)
        exposes = tuple(dict.fromkeys(map(parse_expose, call.exposes)))
        if exposes and call.name is call.ip is None:
            raise AppSwitchError("bad-expose", "an app without a name and an IP can't be exposed", "give it a --name")
        app = self.apps.new_app(
            **identity,
            pid=caller.pid,
            uid=call.uid if caller.uid == 0 else caller.uid,
            command=tuple(call.command),
            netns=call.netns,
            exclusive=call.exclusive,
            exposes=exposes,
        )
        if call.netns:
            self.apps.bind_netns(app, caller.netns)
            return app, ""
        return app, self.apps.new_token(app).hex()


def _read_token(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise AppSwitchError("bad-request", "a token is hexadecimal") from None


def _filter(call: control.Observe) -> Filter:
    return Filter(frozenset(call.kinds), call.app)


async def _read_line(connection: trio.socket.SocketType) -> tuple[bytes, list[int]]:
    """A line and the descriptors that came with it; an empty one at the end."""
    line, fds = b"", list[int]()
    try:
        while not line.endswith(b"\n"):
            room = socket.CMSG_SPACE(namespaces.MOST_SOCKETS * 4)
            data, messages, _, _ = await connection.recvmsg(65536, room, socket.MSG_CMSG_CLOEXEC)
            for level, kind, body in messages:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    fds += [int.from_bytes(body[at : at + 4], "little") for at in range(0, len(body) - 3, 4)]
            line += data
            if not data:
                return b"", fds
            if len(line) > control.MAX_LINE:
                return line, fds  # cut: an answer will say that it can't be read
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    return line, fds


async def _break_when_closed(connection: trio.socket.SocketType) -> None:
    if not await connection.recv(1, socket.MSG_PEEK):
        raise trio.BrokenResourceError("the caller has gone")


async def _until_closed(connection: trio.socket.SocketType) -> None:
    try:
        while await connection.recv(4096):
            pass
    except OSError:
        pass
