"""UDP: a socket lives in the network namespace of the app that receives (docs/design.md, "UDP").

Every address is local to every app's namespace. So a client's socket, made *inside the server's namespace*, bound there
to the client's address and connected to the server's, is the kernel's own UDP in everything: source addresses at both
ends, truncation, errors, control messages. Such a socket is *placed*; the shim puts it under the program's descriptor.

A socket that sends without being connected stays where it is, since answers may come from anywhere. The shim sends
through a *sender* for each destination: placed in the same way, but deaf (a filter lets nothing pass, and its mark says
so), so that the answers of the other side aren't swallowed. They come back by a sender of its own.

What goes to an app on another host stays where it is, too, connected or not: a relay socket is in its own namespace
(edge/flows.py).

Who would receive, the kernel tells (edge/receivers.py). What is remembered here is only what we have answered, so that
an answer finds the app that asked, and so that the shims ask again when a new socket makes old answers wrong.
"""

from __future__ import annotations

import errno
import socket
from collections import OrderedDict
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import trio
from attrs import define, field

from appswitch.core import datagrams, route
from appswitch.core.datagrams import Deny, Lost, Place, Relay
from appswitch.core.exits import NO_WAY, Exit, Exits
from appswitch.core.policy import explain
from appswitch.core.route import LOOPBACK, Egress, Kernel, Refuse
from appswitch.edge.apps import Apps
from appswitch.edge.askers import Askers
from appswitch.edge.epoch import NEVER
from appswitch.edge.flows import Flows
from appswitch.edge.homes import Homes
from appswitch.edge.namespaces import Namespace
from appswitch.edge.peer_channel import UnreachableError
from appswitch.edge.placing import Pair, place, sockaddr
from appswitch.edge.policing import Policing
from appswitch.model import BYPASS, DNS_PORT, GATEWAY, Address, App, Kind
from appswitch.wire import trap

Key = TypeVar("Key")
Value = TypeVar("Value")

REMEMBERED = 65536  # answers
TRIES = 4  # ports
HOME_WITHIN = 1.0  # seconds
SO_REUSEADDR, SO_REUSEPORT = socket.SO_REUSEADDR, socket.SO_REUSEPORT

_ANY: dict[int, Address] = {4: IPv4Address(0), 6: IPv6Address(0)}


@define
class Answer:
    """kind: as in shim/wire.h; passed: a socket to be passed and closed."""

    kind: int
    passed: socket.socket | None = None
    epoch: int = 0
    check: Pair | None = None


@define
class Datagrams:
    """Answers what shims ask about UDP sockets."""

    apps: Apps
    policing: Policing
    homes: Homes
    askers: Askers
    flows: Flows
    name_servers: Sequence[Address]
    """The system's, which programs find in /etc/resolv.conf."""
    exits: Exits
    netns: int
    """The cookie of our own network namespace."""
    _turn: int = 0
    _given: OrderedDict[tuple[Pair, Pair], bool] = field(factory=OrderedDict)
    """What shims were told of a way: by the program's own socket (True), or through a sender."""
    _turns: WeakValueDictionary[frozenset[Pair], trio.Lock] = field(factory=WeakValueDictionary)
    """Of pairs of peers."""

    async def answer(self, app: App, request: trap.UdpRequest) -> Answer:
        """OSError with the errno for the program."""
        await self.apps.until_back(app)
        if not app.netns and await self.homes.of(app) is None:
            return Answer(trap.KERNEL)
        with trio.move_on_after(HOME_WITHIN):
            while app.id not in self.apps.namespaces:  # we have only just started: its keeper comes back
                await self.apps.changed()
        match request:
            case trap.UdpBind():
                return await self._bind(app, request)
            case trap.UdpBound():
                return self._bound(app, request)
            case trap.UdpConnect():
                return await self._connect(app, request)
            case trap.UdpSend():
                return await self._send(app, request)

    # --- bind

    async def _bind(self, app: App, request: trap.UdpBind) -> Answer:
        refused = datagrams.plan_udp_bind(self.apps.table, app, request.ip, request.port, request.v6only)
        if refused is not None:
            where = {"address": request.ip, "port": request.port, "proto": "udp"}
            self.apps.events.publish(Kind.BIND_REFUSED, app, reason=refused.reason, error=refused.error, **where)
            raise OSError(refused.error, refused.reason)
        home = self._home(app)
        at_home = request.netns == home.netns
        free = not request.port or await self._is_free(app, request, home)
        if at_home:
            return Answer(trap.FREE if free and request.port else trap.KERNEL)
        wanted = {SO_REUSEADDR: free or request.reuse_addr, SO_REUSEPORT: request.reuse_port}
        options = [(socket.SOL_SOCKET, name) for name, on in wanted.items() if on]
        if request.v6only:
            options.append((socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))
        return Answer(trap.FD_UDP, await place(home, request.family, (request.ip, request.port), options=options))

    async def _is_free(self, app: App, request: trap.UdpBind, home: Namespace) -> bool:
        """Whether no socket of the app's is there. OSError EADDRINUSE where the kernel wouldn't notice."""
        receivers = await home.receivers()
        if request.port == DNS_PORT and request.ip.is_unspecified and app.id in self.apps.name_servers:
            await self.share_dns(app)
        places = datagrams.to_look_at(app, request.family, request.ip, request.v6only)
        others = [each for each in (receivers.find_bound(ip, request.port) for ip in places) if each is not None]
        if request.reuse_addr and any(each.no_port for each in others):  # by us: the program doesn't share (socket(7))
            raise OSError(errno.EADDRINUSE, "a socket of the app has it")
        return not others

    async def share_dns(self, app: App) -> None:
        """It is a DNS server itself."""
        foreign = [each for each in self.name_servers if each not in (app.ip, app.alias, *LOOPBACK.values())]
        await self.apps.name_servers[app.id].share(foreign)

    def _bound(self, app: App, request: trap.UdpBound) -> Answer:
        table = self.apps.table
        refused = datagrams.plan_udp_bind(table, app, request.ip, request.port, request.v6only)
        if refused is not None:  # it wasn't asked before
            raise OSError(refused.error, refused.reason)
        receiver = datagrams.new_receiver(table, app, request.family, request.ip, request.port, request.v6only)
        if receiver is not None:
            table.add_listener(receiver)
            self.apps.journal.put_receiver(receiver)
            self.apps.events.publish(Kind.LISTEN, app, address=request.ip, port=request.port, proto="udp")
        self.apps.services_changed()
        return Answer(trap.NO_FD)

    # --- connect and send

    async def _connect(self, app: App, request: trap.UdpConnect) -> Answer:
        to = (datagrams.destination(request.ip), request.port)
        async with self._turn_of(app, to, request.bound):
            return await self._connect_in_turn(app, request, to)

    def _turn_of(self, app: App, to: Pair, bound: Pair | None) -> trio.Lock:
        """Of two peers that connect to each other at once, the second has to find where the first has gone."""
        own = (datagrams.source_of(app, to[0], bound[0] if bound else None), bound[1] if bound else 0)
        return self._turns.setdefault(frozenset((own, to)), trio.Lock())

    async def _connect_in_turn(self, app: App, request: trap.UdpConnect, to: Pair) -> Answer:
        epoch = self.apps.epoch.now
        has_left = request.netns == self.netns  # what it is bound to is this host's then
        plan, serving = await self._plan(app, to, None if has_left else request.bound)
        home = self._home(app)
        match plan:
            case Place(candidates=candidates):
                for each in candidates:
                    if (each.id in serving or not plan.heard) and await self._is_connected(each, request, to):
                        return Answer(trap.KERNEL, epoch=epoch)
                placed = await self._place(app, plan, to, request.family)
                self._heed(_name_of(placed), to, native=False)
                return Answer(trap.FD_UDP, placed, epoch)
            case Relay() | Egress(gateways=(_, *_)):
                return await self._connect_far(app, plan, request, to, epoch)
            case Kernel():
                if request.netns == home.netns:
                    return Answer(trap.KERNEL, epoch=epoch)
                bound = request.bound and (_ANY[request.family], request.bound[1])
                return Answer(trap.HOME, await place(home, request.family, bound=bound), epoch)
            case Lost():
                raise OSError(errno.ECONNREFUSED, "nobody is there")
            case Egress():
                if request.netns == self.netns:
                    self._publish_leaving(app, plan)
                    return Answer(trap.KERNEL, epoch=epoch)
                return Answer(trap.FD_UDP, self._leave(app, plan, request.family, connected=True), epoch)

    async def _connect_far(
        self, app: App, plan: Relay | Egress, request: trap.UdpConnect, to: Pair, epoch: int
    ) -> Answer:
        """A socket at home. Where there is no flow, what it sends is refused by the kernel, and it asks with each send:
        its program may hear of that when it receives, where the shim doesn't see it.

        One that connects back to who has asked stays the same: it may hold what came first, unread (nc -l).
        """
        home = self._home(app)
        is_answer = isinstance(plan, Relay) and plan.is_answer
        stays = is_answer and request.bound is not None and request.netns == home.netns
        if stays or await self._is_connected(app, request, to):
            assert request.bound is not None
            source = datagrams.source_of(app, to[0], request.bound[0]), request.bound[1]
            try:
                await self._reach(app, plan, source, to)
            except OSError:
                epoch = NEVER
            return Answer(trap.KERNEL, epoch=epoch)
        bound = request.bound if request.bound and request.bound[1] else (_ANY[request.family], 0)
        for _ in range(TRIES):
            made = await place(home, request.family, bound)
            try:
                made.connect(sockaddr(request.family, to))
                await self._reach(app, plan, _name_of(made), to)
            except OSError as error:
                if error.errno not in (errno.EADDRINUSE, errno.ENETUNREACH):
                    epoch = NEVER
                    break
                made.close()
                if bound[1] or error.errno == errno.ENETUNREACH:
                    raise
            except BaseException:
                made.close()
                raise
            else:
                break
        return Answer(trap.FD_UDP, made, epoch)

    async def _is_connected(self, server: App, request: trap.UdpConnect, to: Pair) -> bool:
        """Whether the socket has been placed for this: for another port of the server's it has no route (guard.py)."""
        home = self.apps.namespaces.get(server.id)
        if home is None or home.netns != request.netns or request.bound is None:
            return False
        found = (await home.receivers()).find_any(to, request.bound)
        return found is not None and (found.local, found.remote) == (request.bound, to)

    async def _send(self, app: App, request: trap.UdpSend) -> Answer:
        to = (datagrams.destination(request.ip), request.port)
        epoch = self.apps.epoch.now
        plan, serving = await self._plan(app, to, request.bound)
        source = (datagrams.source_of(app, to[0], request.bound[0]), request.bound[1])
        match plan:
            case Place():
                if not request.bound[1]:
                    return Answer(trap.FREE)
                try:
                    sender = await self._place(app, plan, to, request.family, deaf=True)
                except ConnectionRefusedError:
                    return Answer(trap.LOST)
                self._heed(source, to, native=True)
                _remember(self._given, (source, to), False)
                return Answer(trap.FD_UDP, sender, epoch)
            case Relay() | Egress(gateways=(_, *_)):
                if not request.bound[1]:
                    return Answer(trap.FREE)
                try:
                    await self._reach(app, plan, source, to)
                except OSError as error:
                    if error.errno in (errno.EADDRINUSE, errno.ENOBUFS, errno.ENETUNREACH):
                        raise
                    return Answer(trap.LOST)
                return await self._from_home(app, request, to, epoch)
            case Kernel():
                may_turn = serving and route.is_own(app, to[0]) and len(self.apps.table.apps_at(app.ip)) > 1
                return await self._from_home(app, request, to, epoch, source if may_turn else None)
            case Lost():
                return Answer(trap.LOST, epoch=epoch)
            case Egress():
                if request.netns == self.netns:
                    self._publish_leaving(app, plan)
                    return Answer(trap.KERNEL, epoch=epoch)
                if request.bound[1]:  # answers of other apps would no longer find it
                    reason = "a socket that has been used inside doesn't send to the outside"
                    self._publish(Kind.REFUSE, app, to, reason=reason, error=errno.ENETUNREACH)
                    raise OSError(errno.ENETUNREACH, reason)
                return Answer(trap.HOME, self._leave(app, plan, request.family), epoch)

    async def _from_home(
        self, app: App, request: trap.UdpSend, to: Pair, epoch: int, check: Pair | None = None
    ) -> Answer:
        """It goes by the kernel alone; from a socket that is elsewhere by now, through a sender."""
        source = (datagrams.source_of(app, to[0], request.bound[0]), request.bound[1])
        home = self._home(app)
        if request.netns == home.netns:
            _remember(self._given, (source, to), True)
            return Answer(trap.KERNEL, epoch=epoch, check=check)
        if not request.bound[1]:
            return Answer(trap.FREE)
        return Answer(trap.FD_UDP, await place(home, request.family, source, to, deaf=True), epoch)

    async def _reach(self, app: App, plan: Relay | Egress, source: Pair, to: Pair) -> None:
        """A flow from `source` to an app on another host, or to the outside. OSError: why who was tried first won't
        have it.
        """
        if isinstance(plan, Egress):
            await self._reach_outside(app, plan, source, to)
            return
        known = self.flows.peer_of(app, source, to)
        if known is not None and any(each.id == known.id for each in plan.candidates):
            return
        error: OSError | None = None
        for each in plan.candidates:
            self.askers.remember(source, each, app)
            try:
                await self.flows.open(app, source, each, to, is_answer=plan.is_answer)
            except OSError as failed:
                error = error or failed
            else:
                self._publish_connect(app, each, to)
                return
        assert error is not None
        self._publish(Kind.REFUSE, app, to, server=plan.candidates[0], reason=error.strerror, error=error.errno)
        raise error

    async def _reach_outside(self, app: App, plan: Egress, source: Pair, to: Pair) -> None:
        known = self.flows.peer_of(app, source, to)
        if isinstance(known, Exit) and known.node in plan.gateways:
            return
        error: OSError | None = None
        for gateway in self.exits.order(plan.gateways, trio.current_time()):
            try:
                await self.flows.open(app, source, Exit(gateway, plan.names), to)
            except UnreachableError as failed:
                self.exits.failed(gateway, trio.current_time())
                error = error or OSError(errno.EHOSTUNREACH, failed.strerror)
            except OSError as failed:
                self.exits.worked(gateway)
                error = failed
                if failed.errno not in NO_WAY:
                    break
            else:
                self.exits.worked(gateway)
                for kind in plan.verdict.kinds:
                    facts = {"rule": plan.verdict.rule, "reason": f"by the gateway {gateway}"}
                    self._publish(kind, app, to, medium=GATEWAY, **facts)
                return
        assert error is not None
        self._publish(Kind.REFUSE, app, to, reason=error.strerror, error=error.errno, medium=GATEWAY)
        raise error

    async def _plan(
        self, app: App, to: Pair, bound: Pair | None
    ) -> tuple[Place | Relay | Egress | Kernel | Lost, set[int]]:
        """Where datagrams to `to` go, and the ids of the apps that have a receiver for them. OSError when refused."""
        source = (datagrams.source_of(app, to[0], bound[0] if bound else None), bound[1] if bound else 0)
        table = self.apps.table
        serving = datagrams.serving_elsewhere(table, app, *to)
        for each in datagrams.candidates(table, app, to[0]):
            await self.apps.until_back(each)
            if await self._receives(each, source, to, exactly=each.id == app.id and not route.is_own(app, to[0])):
                serving.add(each.id)
        asker = self.askers.find(to, app)
        if asker is not None and (
            asker.id not in table.apps
            or (serving and asker.id not in serving and not await self._hears(asker, app, source, to))
        ):
            asker = None
        plan = datagrams.plan_datagrams(
            table,
            self.policing.policy,
            app,
            *to,
            serving=serving,
            asker=asker,
            turn=self._turn,
            gateway=self.exits.here,
            gateways=self.exits.others(),
            bound=bound,
            names=self.policing.names_of(to[0], app),
        )
        if isinstance(plan, Refuse):
            self._publish(Kind.REFUSE, app, to, reason=plan.reason, error=plan.error)
            raise OSError(plan.error, plan.reason)
        if isinstance(plan, Deny):
            reason, rule = explain(plan.verdict, app, plan.server), plan.verdict.rule
            server = plan.server if isinstance(plan.server, App) else None
            self._publish(Kind.DENY, app, to, server=server, rule=rule, reason=reason, error=errno.ECONNREFUSED)
            raise OSError(errno.ECONNREFUSED, reason)
        if isinstance(plan, Place | Relay) and len(plan.candidates) > 1:
            self._turn += 1
        if isinstance(plan, Kernel) and to[1] == DNS_PORT and not serving and app.id in self.apps.name_servers:
            await self.apps.name_servers[app.id].take(to[0])
        return plan, serving

    async def _hears(self, asker: App, app: App, source: Pair, to: Pair) -> bool:
        """Whether who has asked `app` has its socket still."""
        if self.apps.table.is_local(asker):
            return await self._receives(asker, source, to)
        peer = self.flows.peer_of(app, source, to)
        return peer is not None and peer.id == asker.id

    async def _receives(self, app: App, source: Pair, to: Pair, exactly: bool = False) -> bool:
        """exactly: a socket bound to all of the app's addresses doesn't count, for `to` isn't one of them."""
        if source[0].version != to[0].version or app.id not in self.apps.namespaces:
            return False
        found = (await self.apps.namespaces[app.id].receivers()).find(source, to)
        return found is not None and (not exactly or found.local == to)

    async def _place(self, app: App, plan: Place, to: Pair, family: int, deaf: bool = False) -> socket.socket:
        error: OSError | None = None
        for each in plan.candidates:
            try:
                placed = await place(self._home(each), family, (plan.source, plan.port), to, deaf)
            except OSError as failed:
                error = error or failed
            else:
                if deaf:
                    self.askers.remember((plan.source, plan.port), each, app)
                self._publish_connect(app, each, to)
                return placed
        if error is None or error.errno in (errno.ENETDOWN, errno.EPIPE, errno.ECONNRESET):  # it ends just now
            raise OSError(errno.ECONNREFUSED, "the app has ended")
        raise error

    def _leave(self, app: App, plan: Egress, family: int, connected: bool = False) -> socket.socket:
        """A socket of the host's namespace, as far from any app's as the outside is."""
        to = plan.ip, plan.port
        self.exits.check(*to)
        outside = socket.socket(socket.AF_INET6 if family == 6 else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            if connected:
                outside.connect(sockaddr(family, to))
        except OSError:
            outside.close()
            raise
        self._publish_leaving(app, plan)
        return outside

    def _publish_leaving(self, app: App, plan: Egress) -> None:
        medium = BYPASS if plan.bypass else "udp"
        for kind in plan.verdict.kinds:
            self._publish(kind, app, (plan.ip, plan.port), rule=plan.verdict.rule, medium=medium)

    def _publish_connect(self, app: App, server: App, to: Pair) -> None:
        verdict = self.policing.policy.decide(app, server, to[1], "udp")
        for kind in verdict.kinds:
            self._publish(kind, app, to, server=server, rule=verdict.rule, medium="udp")

    def _publish(self, kind: Kind, app: App, to: Pair, **facts: Any) -> None:
        self.apps.events.publish(kind, app, address=to[0], port=to[1], proto="udp", **facts)

    def _home(self, app: App) -> Namespace:
        """OSError when the app has none."""
        if app.id not in self.apps.namespaces:
            raise OSError(errno.ENETDOWN, "the app has no network namespace")
        return self.apps.namespaces[app.id]

    # --- what has been answered

    def _heed(self, source: Pair, to: Pair, native: bool) -> None:
        """A socket has been made; who was told how to send to it, and `native` or not, has to ask again."""
        if self._given.get((to, source)) is native:
            del self._given[to, source]
            self.apps.epoch.advance()


def _remember(answers: OrderedDict[Key, Value], key: Key, value: Value) -> None:
    answers[key] = value
    answers.move_to_end(key)
    if len(answers) > REMEMBERED:
        answers.popitem(last=False)


def _name_of(placed: socket.socket) -> Pair:
    ip = ip_address(placed.getsockname()[0].partition("%")[0])
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    return mapped or ip, placed.getsockname()[1]
