"""What a trapped call comes to: a request in, an answer out.

core/route.py and core/datagrams.py decide; here it is done: dial, make a listener's socket, tell who a client is.
"""

from __future__ import annotations

import errno
import random
import select
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Protocol

import trio
from attrs import define, field

from appswitch.core import route
from appswitch.core.balance import Balancer, by_connections
from appswitch.core.bypass import is_named
from appswitch.core.exits import Exits
from appswitch.core.policy import Verdict, explain
from appswitch.core.route import BindRequest, Egress, Kernel, Reach, Refuse
from appswitch.core.service_table import plain_name
from appswitch.edge import dial
from appswitch.edge.apps import Apps
from appswitch.edge.counters import Counters
from appswitch.edge.datagrams import Datagrams
from appswitch.edge.dial import Asked, Dialer, start_egress
from appswitch.edge.egress import EgressSockets
from appswitch.edge.epoch import NEVER
from appswitch.edge.leaving import Leaving
from appswitch.edge.listeners import ListenerSockets
from appswitch.edge.policing import Policing
from appswitch.edge.shares import share_of_descriptors
from appswitch.edge.tcp_names import TcpNames
from appswitch.model import BYPASS, DOMAIN, Address, App, Kind, Listener
from appswitch.wire import trap
from appswitch.wire.dns import TTL, Found

GRACE = 0.005  # seconds that a connect to a starting app waits for its bind
LOOK_UP_WITHIN = 2.0  # seconds
REFRESH_WITHIN = 0.2  # seconds that a connect waits for word of what other nodes serve
PATIENCE_NONBLOCKING = 1.0  # seconds that a connect may wait for room in a full queue when it shouldn't block


@define
class Answer:
    """A reply and the descriptors that go along: a socket that is closed once it is sent, and some that we keep."""

    frame: bytes
    passed: socket.socket | None = None
    shared: Sequence[int] = ()

    def descriptors(self) -> list[int]:
        """In the order of the protocol."""
        return [*([self.passed.fileno()] if self.passed else []), *self.shared]


def failure(error: int) -> Answer:
    """The call fails with this errno."""
    return Answer(trap.encode_reply(error=error))


class Answers(Protocol):
    """What a trapped call is answered by."""

    async def answer(self, app: App, request: trap.Request, channel: socket.socket) -> Answer:
        """channel: where the request came from; when it is closed, nobody waits for the answer."""


@define
class Calls(Answers):
    """Answers the calls of this host's apps."""

    apps: Apps
    sockets: ListenerSockets
    dialer: Dialer
    egress: EgressSockets
    tcp_names: TcpNames
    balancer: Balancer
    datagrams: Datagrams
    policing: Policing
    exits: Exits
    leaving: Leaving
    rng: random.Random
    netns: int
    """The cookie of our own network namespace."""
    look_up: Callable[[str], Awaitable[Found | None]]
    """What a name outside stands for."""
    refresh: Callable[[str], Awaitable[None]] | None = None
    """Fetches what another node has to say of its apps; None: there are no others."""
    counters: Counters | None = None
    """Of connects by capability; None: they aren't counted."""
    most_listeners: int = field(factory=share_of_descriptors)
    """Of one app."""

    async def answer(self, app: App, request: trap.Request, channel: socket.socket) -> Answer:
        try:
            match request:
                case trap.Connect():
                    return await self._connect(app, request, channel)
                case trap.Bind():
                    return self._bind(app, request)
                case trap.Who():
                    return self._who(request)
                case trap.NameOf():
                    return self._name_of(app, request)
                case trap.Listen():
                    return self._listen(app, request)
                case trap.Resolve():
                    return await self._resolve(app, request)
                case trap.Reverse():
                    return self._reverse(request)
                case trap.OwnIps():
                    return Answer(trap.encode_reply(text=trap.encode_own_ips(app)))
                case trap.Register():
                    return failure(errno.EEXIST)
                case _:
                    return await self._datagrams(app, request)
        except OSError as error:
            return failure(error.errno or errno.EIO)

    async def _connect(self, app: App, request: trap.Connect, channel: socket.socket) -> Answer:
        epoch = self.apps.epoch.now  # what we find out now may not hold any more when we have connected
        plan = self._plan_connect(app, request)
        if isinstance(plan, Refuse) and plan.error == errno.ECONNREFUSED and self.apps.is_starting(request.ip):
            # A bind takes us longer than the kernel. iperf -d binds in one thread and has the other side connect
            # back by another: a program that has just started may be about to bind.
            with trio.move_on_after(GRACE):
                await self.apps.changed()
            epoch = self.apps.epoch.now
            plan = self._plan_connect(app, request)
        if isinstance(plan, Refuse) and not plan.denied and await self._look_elsewhere(app, request.ip):
            epoch = self.apps.epoch.now
            plan = self._plan_connect(app, request)
        match plan:
            case Refuse(denied=denied):
                kind = Kind.DENY if denied else Kind.REFUSE
                server = plan.judged[0].listener.app if plan.judged else None
                facts = {"server": server, "rule": plan.rule, "reason": plan.reason, "error": plan.error}
                self._publish(kind, app, request, **facts)
                return failure(plan.error)
            case Kernel():
                self._publish(Kind.CONNECT, app, request, medium="dns")
                return Answer(trap.encode_reply(kind=trap.KERNEL))
        try:
            return await self._carry_out(app, request, plan, epoch, partial(self._plan_again, app, request, channel))
        except OSError as error:
            self._publish(Kind.REFUSE, app, request, reason=error.strerror, error=error.errno)
            raise

    async def _look_elsewhere(self, app: App, ip: Address) -> bool:
        """Asks the nodes of the apps at `ip` for what they serve: word of it may still be under way. False: nobody."""
        table = self.apps.table
        apps = table.apps_at(app.ip if ip.is_loopback else ip)
        nodes = {each.node for each in apps if not table.is_local(each)} - table.unreachable
        if self.refresh is None or not nodes:
            return False
        with trio.move_on_after(REFRESH_WITHIN):
            async with trio.open_nursery() as nursery:
                for node in nodes:
                    nursery.start_soon(_refresh, self.refresh, node)
        return True

    async def _carry_out(
        self, app: App, request: trap.Connect, plan: Reach | Egress, epoch: int, again: Callable[[], Reach]
    ) -> Answer:
        """epoch: when the plan was made; again: makes it anew."""
        asked = Asked(app, (request.ip, request.port), request.family, request.nonblocking)
        if isinstance(plan, Egress):
            return await self._leave(app, plan, asked, request)
        patience = min(request.patience or dial.PATIENCE, dial.PATIENCE)
        if request.nonblocking:
            patience = PATIENCE_NONBLOCKING
        dialled = await self.dialer.connect(plan, again, asked, patience)
        client, server, name = dialled.client, dialled.listener, dialled.name
        kind, medium, text = (trap.FD_TCP, "tcp", name.packed) if name else (trap.FD_UNIX, "unix", b"")
        verdict = self._verdict(app, server, plan, epoch)
        seen = {"server": server.app, "rule": verdict.rule, "medium": medium}
        if not verdict.allowed:  # since a reload while we waited for room
            client.close()
            self._publish(Kind.DENY, app, request, reason=explain(verdict, app, server.app), **seen)
            return failure(errno.ECONNREFUSED)
        if not dialled.under_way:
            for each in verdict.kinds:
                self._publish(each, app, request, **seen)
        if kind == trap.FD_UNIX and request.want_capabilities and app.netns and not plan.port:
            near = self.balancer.first_tier(plan.candidates)
            by_unix = not any(each.app.tcp or not self.apps.table.is_local(each.app) for each in near)
            each_seen = plan.audited or self.apps.events.watched(Kind.CONNECT) or by_connections(plan.candidates)
            if by_unix and not each_seen:
                return self._with_capabilities(app, client, plan.source, near, epoch, request.want_epoch)
        return Answer(trap.encode_reply(kind=kind, text=text), client)

    def _verdict(self, app: App, server: Listener, plan: Reach, epoch: int) -> Verdict:
        """Policy's, as it is now. epoch: when the plan was made."""
        if self.apps.epoch.now == epoch:
            for each in plan.judged:
                if each.listener.id == server.id:
                    return each.verdict
        return self.policing.policy.decide(app, server.app, server.port)

    async def _leave(self, app: App, plan: Egress, asked: Asked, request: trap.Connect) -> Answer:
        if plan.gateways:
            source = app.source(plan.ip.version), request.bound[1] if request.bound else 0
            client, name = await self.leaving.connect(app, plan, asked, source)
            return Answer(trap.encode_reply(kind=trap.FD_TCP, text=name.packed), client)
        self.exits.check(plan.ip, plan.port)
        outside = start_egress(plan, request.family, for_program=True)
        medium = BYPASS if plan.bypass else "tcp"
        self.egress.add(outside, app, asked.dest, self.apps.table.node, plan.names, medium=medium)
        for kind in plan.verdict.kinds:
            self._publish(kind, app, request, rule=plan.verdict.rule, medium=medium)
        return Answer(trap.encode_reply(kind=trap.FD_TCP), outside)

    def _plan_again(self, app: App, request: trap.Connect, channel: socket.socket) -> Reach:
        """Where this connect may go now. OSError: nowhere any more, or its caller has gone."""
        if _is_closed(channel):
            raise ConnectionAbortedError(errno.ECONNABORTED, "the caller has gone")
        plan = self._plan_connect(app, request)
        if isinstance(plan, Reach):
            return plan
        raise ConnectionRefusedError(errno.ECONNREFUSED, "every instance has gone, or takes no more connections")

    def _publish(self, kind: Kind, app: App, request: trap.Connect | trap.Bind, **facts: object) -> None:
        self.apps.events.publish(kind, app, address=request.ip, port=request.port, proto="tcp", **facts)

    def _plan_connect(self, app: App, request: trap.Connect) -> route.ConnectPlan:
        inside = self.apps.table.owns(request.ip)  # then it doesn't leave, whoever lets it
        return route.plan_connect(
            self.apps.table,
            self.policing.policy,
            app,
            request.ip,
            request.port,
            gateway=self.exits.here,
            gateways=() if inside else self.exits.others(),
            bound=request.bound,
            names=() if inside else self.policing.names_of(request.ip, app),
        )

    def _with_capabilities(
        self,
        app: App,
        client: socket.socket,
        source: Address,
        instances: list[Listener],
        epoch: int,
        want_epoch: bool,
    ) -> Answer:
        """The next connects to there need not ask while the epoch is still the one of the plan.

        An app that shares our namespace gets none: the server couldn't tell it from us (shim/verify.h). Nor does one
        whose connections are audited: each of them has to be reported.
        """
        there = [each for each in instances if each.id in self.apps.table.listeners]
        shares, uses = self.balancer.grant(there, trap.MOST_CAPABILITIES)
        page = self.counters.page_of(app) if self.counters else None
        number, slots = (page.number, [page.slot_of(each) for each, _ in shares]) if page else (0, [])
        links = [self.sockets.link(each.id) for each, _ in shares]
        text = trap.encode_capabilities(epoch, source, shares, uses, want_epoch, number, slots, links)
        shared = [self.apps.epoch.fd] if want_epoch else []
        shared += [page.fd] if page else []
        shared += [self.sockets.handle(listener.id) for listener, _ in shares]
        return Answer(trap.encode_reply(kind=trap.FD_UNIX, text=text), client, shared)

    def _who(self, request: trap.Who) -> Answer:
        """A server asks whose connection it has accepted."""
        listener = self.apps.table.listeners.get(request.listener_id)
        epoch = self.apps.epoch
        if listener is None:
            return failure(errno.EACCES)
        client = self.apps.owner_of(request.netns)
        by_handler = request.netns == self.netns
        verdict = self.policing.policy.decide(client, listener.app, listener.port) if client else None
        if not by_handler and not (verdict and verdict.allowed):
            where = {"address": listener.ip, "port": listener.port, "proto": "tcp", "medium": "unix"}
            rule = verdict.rule if verdict else None
            reason = "what it was given before no longer holds" if client else "an unidentified client"
            self.apps.events.publish(Kind.DENY, client, server=listener.app, rule=rule, reason=reason, **where)
            return failure(errno.EACCES)
        text = trap.encode_client(
            epoch.now,
            client or listener.app,
            listener.app,
            by_handler=by_handler,
            has_epoch=request.want_epoch,
        )
        return Answer(trap.encode_reply(text=text), shared=[epoch.fd] if request.want_epoch else [])

    def _name_of(self, app: App, request: trap.NameOf) -> Answer:
        name = self.tcp_names.find(request.cookie, app)
        return failure(errno.ENOENT) if name is None else Answer(trap.encode_reply(text=name))

    def _bind(self, app: App, request: trap.Bind) -> Answer:
        if request.port:
            self.apps.forget_closed(app, request.port)
        wanted = BindRequest(
            request.family, request.ip, request.port, request.v6only, request.reuse_addr, request.reuse_port
        )
        plan = route.plan_bind(self.apps.table, app, wanted, self.rng)
        if isinstance(plan, Listener) and len(self.apps.table.listeners_of(app)) >= self.most_listeners:
            plan = Refuse(errno.ENOBUFS, f"the app has {self.most_listeners} listeners: no more for one")
        if isinstance(plan, Refuse):
            self._publish(Kind.BIND_REFUSED, app, request, reason=plan.reason, error=plan.error)
            return failure(plan.error)
        bound = self.sockets.open(plan)
        self.apps.table.add_listener(plan)
        self.apps.note_change()
        return Answer(trap.encode_reply(kind=trap.FD_UNIX), bound)

    def _listen(self, app: App, request: trap.Listen) -> Answer:
        listener = self.apps.table.listeners.get(request.listener_id)
        if listener is None or listener.app.id != app.id:
            return failure(errno.EINVAL)
        refused = route.plan_listen(self.apps.table, listener)
        where = {"address": listener.ip, "port": listener.port, "proto": "tcp"}
        if refused is not None:
            self.apps.events.publish(Kind.BIND_REFUSED, app, reason=refused.reason, error=refused.error, **where)
            return failure(refused.error)
        self.apps.table.mark_listening(listener.id)
        self.apps.services_changed()
        if not listener.listening:
            self.apps.events.publish(Kind.LISTEN, app, **where)
        return Answer(trap.encode_reply())

    async def _datagrams(self, app: App, request: trap.UdpRequest) -> Answer:
        answer = await self.datagrams.answer(app, request)
        if not isinstance(request, trap.UdpConnect | trap.UdpSend):
            return Answer(trap.encode_reply(kind=answer.kind), answer.passed)
        text = trap.encode_path(answer.epoch, request.want_epoch, answer.check)
        shared = [self.apps.epoch.fd] if request.want_epoch else []
        return Answer(trap.encode_reply(kind=answer.kind, text=text), answer.passed, shared)

    async def _resolve(self, app: App, request: trap.Resolve) -> Answer:
        name = plain_name(request.name)
        ip = self.apps.table.resolve(name)
        if ip is None and is_named(app, name):  # it is about to ask the host's resolver, of which we hear nothing
            with trio.move_on_after(LOOK_UP_WITHIN):
                found = await self.look_up(name)
                if found is not None:
                    self.policing.learn(app.id, found)
            ip = self.apps.table.resolve(name)  # an app may have come meanwhile
        if not request.told:
            answer = {"answer": (str(ip),)} if ip is not None else {"reason": "no app has this name"}
            self.apps.events.publish(Kind.RESOLVE, app, query=request.name, **answer)
        epoch = NEVER if self.apps.events.watched(Kind.RESOLVE) else self.apps.epoch.now
        text = trap.encode_answer(epoch, ip, TTL, has_epoch=request.want_epoch)
        return Answer(trap.encode_reply(text=text), shared=[self.apps.epoch.fd] if request.want_epoch else [])

    def _reverse(self, request: trap.Reverse) -> Answer:
        found = self.apps.table.names_of(request.ip)
        return Answer(trap.encode_reply(text=f"{found[0]}.{DOMAIN}".encode())) if found else failure(errno.ENOENT)


async def _refresh(refresh: Callable[[str], Awaitable[None]], node: str) -> None:
    with suppress(OSError):
        await refresh(node)


def _is_closed(channel: socket.socket) -> bool:
    """Whether the other end has been closed. (That we have shut down ours is no matter: TrapHandler.finish.)"""
    looked = select.poll()
    looked.register(channel, 0)
    return bool(looked.poll(0))  # POLLHUP, whatever is asked for (poll(2), unix_poll)
