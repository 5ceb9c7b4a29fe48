"""UDP between hosts: flows between a socket of an app here and one of an app on another host.

Every address is local to every app's namespace. So at each end of a flow the trap handler has a *relay socket* in the
app's namespace, bound there to the name of the far socket and connected to that of the near one: the near one, which
is at home and as the program made it, sends to the far address by the kernel alone, and hears from it. Both ends are
alike. Between the hosts, datagrams go by one UDP socket a node, in packets that are authentic and new (wire/flow.py).

      app's socket  <-kernel->  relay socket  <-here->  one UDP socket a node  <-network->  the same at the other end

A flow may lead outside, by a gateway: there, in the place of the relay socket, is one of the gateway's host that is
connected to the server outside.

A flow is set up by an announce over the peer channel; the other side judges it (edge/datagrams.py). Each announce makes
a session, and a flow may have two: those of peers that announce at once, or one that takes the place of another. It
ends when one of the sockets does, which the kernel tells by refusing, or when asked; when it has been idle; and when
the apps or the policy say so. Then the relay socket is closed, and the app's own kernel refuses what the app sends.

Nothing waits in here: what a socket's buffer has no room for is lost, as with UDP. A relay has its turn for a batch.
"""

from __future__ import annotations

import errno
import os
import secrets
import socket
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from heapq import nsmallest
from ipaddress import ip_address
from typing import Any
from weakref import WeakValueDictionary

import structlog
import trio
from attrs import define, field

from appswitch.core.exits import Exit
from appswitch.edge.apps import Apps
from appswitch.edge.namespaces import Namespace
from appswitch.edge.placing import enlarge, place_relay, refuse, sockaddr
from appswitch.edge.policing import Policing
from appswitch.host.cookies import cookie_of
from appswitch.model import GATEWAY, Address, App, Connection, Outside, Party, State
from appswitch.wire import flow as wire
from appswitch.wire.flow import Kind, Session

Pair = tuple[Address, int]
Peer = App | Exit
Key = tuple[int, Pair, Pair]
"""The id of the app here, the name of its socket, that of the far one."""

MOST = 16384  # flows: a descriptor each
EVICTED = 64  # at a time, so that looking for them costs little each
BATCH = 32  # datagrams
LOOK_EVERY = 1.0  # seconds
REVIEW_EVERY = 0.1  # seconds at least
RENEW_EVERY = 1.0  # seconds at least, of one flow
IDLE = 300.0  # seconds until a flow ends
REFUSAL_HOLDS = 0.2  # seconds that nobody is asked again
MOST_REFUSALS = 1024

IP_MTU_DISCOVER, IP_PMTUDISC_DONT = 10, 0  # linux/in.h; the socket module has no names for them

log = structlog.get_logger()


def open_shared(ip: str, port: int) -> socket.socket:
    """The UDP socket of a node, for all its flows, at the address and port of its peer channel. OSError."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    shared = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        enlarge(shared)
        # No path is asked for its MTU: what is too large is sent in fragments (ip(7)).
        shared.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
        shared.bind((ip, port))
    except OSError:
        shared.close()
        raise
    return shared


def connect_outside(to: Pair) -> socket.socket:
    """A UDP socket of this host. OSError: ENETUNREACH, say."""
    made = socket.socket(
        socket.AF_INET6 if to[0].version == 6 else socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
    )
    try:
        enlarge(made)
        made.connect(sockaddr(to[0].version, to))
    except OSError:
        made.close()
        raise
    return made


@define(eq=False)
class Flow:
    """near, far: the names of the two sockets; judged: who asked whom, at which port; None: an answer, which may go.

    home: where the near socket is; None: outside, and `app` is the peer; to: where the peer is; session: by which we
    send.
    """

    app: App
    near: Pair
    peer: Peer
    far: Pair
    home: Namespace | None
    relay: socket.socket
    judged: tuple[App, Party, int] | None = None
    to: Any = None
    session: Session | None = None
    numbers: list[int] = field(factory=list)
    is_over: bool = False
    is_used: bool = True
    last_used: float = 0.0
    renewed: float = 0.0

    @property
    def key(self) -> Key:
        return self.app.id, self.near, self.far

    @property
    def client_id(self) -> int:
        """Of who asked for it."""
        return self.judged[0].id if self.judged and isinstance(self.judged[0], App) else self.app.id

    def receives(self) -> bool:
        """Whether there is a socket still that hears the peer."""
        if self.home is None:
            return True
        try:
            return self.home.receives_from(self.far, self.near)
        except OSError:  # the app has ended
            return False


@define(eq=False)
class Flows:
    """secret: the cluster's key; announce: asks a node to take a flow; address_of: where a node's UDP socket is."""

    apps: Apps
    policing: Policing
    secret: bytes
    announce: Callable[[App, Pair, Peer, Pair, int], Awaitable[None]]
    """Of the app here, the name of its socket, the peer, the name of its socket, and the flow's number. OSError."""
    address_of: Callable[[str], tuple[str, int] | None]
    _shared: socket.socket | None = None
    _nursery: trio.Nursery | None = None
    _flows: dict[Key, Flow] = field(factory=dict)
    _sessions: dict[int, tuple[Flow, Session]] = field(factory=dict)
    _turns: WeakValueDictionary[Key, trio.Lock] = field(factory=WeakValueDictionary)
    _refusals: OrderedDict[tuple[Key, int | str], float] = field(factory=OrderedDict)
    _leaving: memoryview = field(factory=lambda: memoryview(bytearray(wire.MOST)))
    _arrived: memoryview = field(factory=lambda: memoryview(bytearray(wire.MOST + 20)))

    async def run(self, shared: socket.socket, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Carries flows for ever. shared: the node's bound UDP socket, non-blocking."""
        async with trio.open_nursery() as self._nursery:
            self._shared = shared
            self._nursery.start_soon(self._keep_reviewed)
            self._nursery.start_soon(self._keep_looking)
            task_status.started()
            await self._receive(shared)

    # --- setting up

    def peer_of(self, app: App, near: Pair, far: Pair) -> Peer | None:
        """Who is at the other end of the flow between two sockets, if there is one."""
        known = self._flows.get((app.id, near, far))
        return known.peer if known is not None and known.session is not None else None

    async def open(self, app: App, near: Pair, peer: Peer, far: Pair, *, is_answer: bool = False) -> None:
        """A flow of `app` to `peer` from now on. OSError: ECONNREFUSED: nobody receives there; or why it can't be."""
        known = self.peer_of(app, near, far)
        if known is not None and known.id == peer.id:
            return
        if self._refusals.get(((app.id, near, far), peer.id), 0.0) > trio.current_time():
            raise OSError(errno.ECONNREFUSED, "nobody receives there")
        flow = await self._made(app, near, peer, far, replace=True)
        if not is_answer:
            flow.judged = app, peer if isinstance(peer, App) else Outside(far[0], peer.names), far[1]
        try:
            await self._announce(flow)
        except OSError as error:
            if flow.session is not None:  # the peer has announced it meanwhile
                return
            self.end(flow, None)
            if error.errno == errno.ECONNREFUSED:
                self._refusals[flow.key, peer.id] = trio.current_time() + REFUSAL_HOLDS
                if len(self._refusals) > MOST_REFUSALS:
                    self._refusals.popitem(last=False)
            raise

    async def accept(self, app: App, near: Pair, peer: App, far: Pair, number: int, *, is_answer: bool) -> None:
        """Takes the flow that `peer` has announced. OSError: EADDRINUSE when another app has that name here."""
        flow = await self._made(app, near, peer, far, replace=peer.id not in self.apps.table.apps)
        self._take_up(flow, number, judged=None if is_answer else (peer, app, near[1]))

    async def let_out(self, app: App, source: Pair, server: Outside, port: int, number: int) -> None:
        """Takes the flow that an app of another node has announced, to a server outside. OSError."""
        to = server.ip, port
        flow = await self._made(app, to, app, source, replace=True, outside=True)
        self._take_up(flow, number, judged=(app, server, port))

    def _take_up(self, flow: Flow, number: int, judged: tuple[App, Party, int] | None) -> None:
        """Its announced session. Nothing waits between this and where it was made."""
        if number in self._sessions:
            if not flow.numbers:  # it was made for this
                self.end(flow)
            raise OSError(errno.EINVAL, "a flow with this number is there")
        flow.judged = judged or flow.judged
        flow.session = self._add_session(flow, number, side=1)

    async def _made(self, app: App, near: Pair, peer: Peer, far: Pair, *, replace: bool, outside: bool = False) -> Flow:
        key = app.id, near, far
        async with self._turns.setdefault(key, trio.Lock()):
            known = self._flows.get(key)
            if known is not None:
                if known.peer.id == peer.id:
                    return known
                if not replace and known.peer.id in self.apps.table.apps:
                    raise OSError(errno.EADDRINUSE, "a socket of another app has that name")
                self.end(known, Kind.CLOSED)
            home = None if outside else self.apps.namespaces.get(app.id)
            if (home is None and not outside) or self._nursery is None:
                raise OSError(errno.ENETDOWN, "the app has no network namespace, or this host no others")
            if len(self._flows) >= MOST:
                self._evict()
            relay = await place_relay(home, far, near) if home else connect_outside(near)
            if home is not None:
                home.ours.add(cookie_of(relay))
            flow = Flow(app, near, peer, far, home, relay, to=self._address_of(peer), last_used=trio.current_time())
            self._flows[key] = flow
            self._nursery.start_soon(self._relay, flow)
            return flow

    def _evict(self) -> None:
        """Ends some of the client that has most: those that are longest out of use. So none starves the others, and
        what it goes on using is opened anew.
        """
        ((greediest, _),) = Counter(each.client_id for each in self._flows.values()).most_common(1)
        of_one = [each for each in self._flows.values() if each.client_id == greediest]
        for each in nsmallest(EVICTED, of_one, key=lambda flow: (flow.is_used, flow.last_used)):
            self._end_unasked(each)

    async def _announce(self, flow: Flow) -> None:
        """OSError when the peer won't have it."""
        number = secrets.randbits(64)
        session = self._add_session(flow, number, side=0)
        await self.announce(flow.app, flow.near, flow.peer, flow.far, number)
        if flow.is_over:
            raise OSError(errno.ECONNREFUSED, "it has ended already")
        flow.session = session
        flow.to = self._address_of(flow.peer) or flow.to

    def _add_session(self, flow: Flow, number: int, side: int) -> Session:
        session = Session(self.secret, number, side)
        self._sessions[number] = flow, session
        flow.numbers.append(number)
        if len(flow.numbers) > 2:
            del self._sessions[flow.numbers.pop(0)]
        return session

    def _address_of(self, peer: Peer) -> Any:
        address = self.address_of(peer.node)
        if address is None or self._shared is None:
            return None
        return sockaddr(6 if self._shared.family == socket.AF_INET6 else 4, (ip_address(address[0]), address[1]))

    def all(self) -> Collection[Flow]:
        """Those that are there."""
        return self._flows.values()

    async def to_outside(self) -> list[Connection]:
        """Those that lead there, for Connections.others; not those that policy ends just now."""
        return [_connection(each, self.apps.table.node) for each in self._flows.values() if self._leads_outside(each)]

    def _leads_outside(self, flow: Flow) -> bool:
        return (flow.home is None or isinstance(flow.peer, Exit)) and self._may_go_on(flow)

    # --- datagrams

    async def _relay(self, flow: Flow) -> None:
        """What the app sends, to the peer. Until the flow is over."""
        with suppress(trio.ClosedResourceError):
            while not flow.is_over:
                await trio.lowlevel.wait_readable(flow.relay)
                self._relay_batch(flow)

    def _relay_batch(self, flow: Flow) -> None:
        room = self._leaving[wire.DATA_AT :]
        for _ in range(BATCH):
            try:
                size = flow.relay.recv_into(room, 0, socket.MSG_DONTWAIT | socket.MSG_TRUNC)
            except BlockingIOError:
                return
            except ConnectionRefusedError:  # the app has closed its socket, and something has come for it since
                self.end(flow, Kind.REFUSED)
                return
            except OSError:  # another of ICMP's errors (ip(7)): who may send raw packets in there can have any
                continue
            if size <= wire.MOST_DATA:
                flow.is_used = True
                self._send(flow, size, Kind.DATA)

    def _send(self, flow: Flow, size: int, kind: Kind) -> None:
        if flow.session is not None and flow.to is not None:
            self._send_to(flow.to, flow.session.seal(self._leaving, size, kind))

    def _send_to(self, to: Any, packet: bytes | memoryview) -> None:
        assert self._shared is not None
        with suppress(OSError):  # no room, no route, a packet filter: lost
            self._shared.sendto(packet, socket.MSG_DONTWAIT, to)

    async def _receive(self, shared: socket.socket) -> None:
        """What comes from other nodes, to the apps. For ever."""
        while True:
            await trio.lowlevel.wait_readable(shared)
            for _ in range(BATCH):
                try:
                    size, source = shared.recvfrom_into(self._arrived, 0, socket.MSG_DONTWAIT)
                except OSError:
                    break
                self._take(self._arrived[:size], source)

    def _take(self, packet: memoryview, source: Any) -> None:
        head = wire.read_head(packet)
        if head is None:
            return
        if head.flow not in self._sessions:
            answer = wire.answer_unknown(self.secret, packet)
            if answer is not None:
                self._send_to(source, answer)
            return
        flow, session = self._sessions[head.flow]
        kind = session.open(packet)
        if kind is None:
            return
        if kind is Kind.UNKNOWN:
            self._renew(flow, session)
            return
        flow.to = source  # wherever the peer is by now
        if kind is Kind.DATA:
            self._deliver(flow, wire.data_of(packet))
        else:
            self.end(flow, None)
            if kind is Kind.REFUSED and self._nursery is not None:
                self._nursery.start_soon(_refuse, flow)

    def _deliver(self, flow: Flow, data: memoryview) -> None:
        flow.is_used = True
        try:
            flow.relay.send(data, socket.MSG_DONTWAIT)
        except ConnectionRefusedError:  # what came before found nobody
            self.end(flow, Kind.REFUSED)
        except OSError:  # no room: lost
            pass

    def _renew(self, flow: Flow, session: Session) -> None:
        """The peer's trap handler has started anew, or an end of the flow didn't reach us."""
        now = trio.current_time()
        if session is flow.session and now >= flow.renewed + RENEW_EVERY and self._nursery is not None:
            flow.renewed = now
            self._nursery.start_soon(self._announce_again, flow)

    async def _announce_again(self, flow: Flow) -> None:
        try:
            await self._announce(flow)
        except OSError as error:
            log.debug("a flow isn't taken again", peer=flow.peer.node, reason=error.strerror)
            if error.errno == errno.ECONNREFUSED and not flow.is_over:
                self.end(flow, None)
                await _refuse(flow)
            # Else its node has only just started, or doesn't answer: it will say again that it doesn't know the flow.

    # --- ends

    def end(self, flow: Flow, kind: Kind | None = None) -> None:
        """kind: what the peer is told."""
        if flow.is_over:
            return
        flow.is_over = True
        if kind is not None:
            self._send(flow, 0, kind)
        for number in flow.numbers:
            del self._sessions[number]
        del self._flows[flow.key]
        if flow.home is not None:
            flow.home.ours.discard(cookie_of(flow.relay))
        trio.lowlevel.notify_closing(flow.relay)
        flow.relay.close()

    async def _keep_looking(self) -> None:
        """Ends flows that nobody uses, for ever."""
        while True:
            await trio.sleep(LOOK_EVERY)
            now = trio.current_time()
            for count, flow in enumerate(list(self._flows.values())):
                if flow.is_used:
                    flow.is_used, flow.last_used = False, now
                elif not flow.is_over:
                    self._look_after(flow, now)
                if count % BATCH == 0:
                    await trio.lowlevel.checkpoint()

    def _look_after(self, flow: Flow, now: float) -> None:
        if flow.session is not None and not flow.receives():
            self.end(flow, Kind.CLOSED)
        elif now > flow.last_used + IDLE:
            self._end_unasked(flow)

    def _end_unasked(self, flow: Flow) -> None:
        """Its socket is there still: who sends has to ask again."""
        self.end(flow, Kind.CLOSED)
        self.apps.epoch.advance()

    async def _keep_reviewed(self) -> None:
        """Ends flows of apps that have gone, and those that policy denies by now; for ever."""
        while True:
            await self.apps.changed()
            await trio.sleep(REVIEW_EVERY)
            for count, flow in enumerate(list(self._flows.values())):
                if not self._may_go_on(flow):
                    self.end(flow, Kind.CLOSED)
                if count % BATCH == 0:
                    await trio.lowlevel.checkpoint()

    def _may_go_on(self, flow: Flow) -> bool:
        apps = self.apps.table.apps
        ends = (flow.app, flow.peer, *(flow.judged or ())[:2])
        if not all(each.id in apps for each in ends if isinstance(each, App)):
            return False
        if flow.judged is None:
            return True
        client, server, port = flow.judged
        server = apps[server.id] if isinstance(server, App) else server
        return self.policing.policy.decide(apps[client.id], server, port, "udp").allowed


def _connection(flow: Flow, node: str) -> Connection:
    """Of one that leads outside."""
    if flow.home is None:
        name = flow.relay.getsockname()
        source, dest = (ip_address(name[0].partition("%")[0]), name[1]), flow.near
    else:
        source, dest = flow.near, flow.far
    names = flow.judged[1].names if flow.judged and isinstance(flow.judged[1], Outside) else ()
    inodes = os.fstat(flow.relay.fileno()).st_ino, 0
    state = State.ESTABLISHED if flow.session else State.QUEUED
    return Connection(flow.app, source, dest, None, None, node, state, "udp", GATEWAY, inodes, names)


async def _refuse(flow: Flow) -> None:
    """Has the app's kernel say that nobody received what the app has sent."""
    if flow.home is not None:
        with suppress(OSError):  # the app ends just now
            await refuse(flow.home, flow.far, flow.near)
