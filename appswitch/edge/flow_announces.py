"""The announces of flows (edge/flows.py): ours to other nodes, and theirs, which are judged by our own table."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable

import trio
from attrs import define

from appswitch.core import datagrams
from appswitch.core.datagrams import Deny
from appswitch.core.policy import explain
from appswitch.core.route import Refuse
from appswitch.edge.apps import Apps
from appswitch.edge.askers import Askers
from appswitch.edge.flows import Flows, Peer
from appswitch.edge.homes import Homes
from appswitch.edge.peer_channel import Caller
from appswitch.edge.peers import Peers
from appswitch.edge.policing import Policing
from appswitch.model import Address, App, Kind
from appswitch.wire.addresses import pack_ip, unpack_ip
from appswitch.wire.peer import MOST_NAMES, FlowOpened, OpenFlow, OpenOutside

Pair = tuple[Address, int]

ANSWERS_WITHIN = 0.3  # seconds


@define
class FlowAnnouncer:
    """Announces ours."""

    peers: Peers

    async def announce(self, app: App, near: Pair, peer: Peer, far: Pair, number: int) -> None:
        """As Flows wants it. OSError when the peer's node won't have it, or doesn't answer."""
        source, dest = (pack_ip(near[0]), near[1]), (pack_ip(far[0]), far[1])
        request: OpenFlow | OpenOutside
        if isinstance(peer, App):
            request = OpenFlow(number, app.number, *source, peer.number, *dest)
        else:
            request = OpenOutside(number, app.number, *source, *dest, peer.names[:MOST_NAMES])
        await self.peers.ask(peer.node, request, ANSWERS_WITHIN)


@define
class FlowJudge:
    """Answers those of others. client_of: finds an app by its node and its number there. OSError."""

    apps: Apps
    policing: Policing
    homes: Homes
    askers: Askers
    flows: Flows
    client_of: Callable[[str, int], Awaitable[App]]

    async def answer(self, caller: Caller, request: OpenFlow) -> FlowOpened:
        """OSError when it isn't to be, or can't be told in time: the app's keeper may be stopped, say."""
        with trio.move_on_after(ANSWERS_WITHIN):  # nobody waits for longer
            return await self._answer(caller, request)
        raise OSError(errno.ETIMEDOUT, "the app's namespace doesn't answer")

    async def _answer(self, caller: Caller, request: OpenFlow) -> FlowOpened:
        source = unpack_ip(request.source_ip), request.source_port
        dest = unpack_ip(request.dest_ip), request.dest_port
        app = self.apps.table.app_of(self.apps.table.node, request.server)
        peer = await self.client_of(caller.node, request.client)
        if app is None:
            raise OSError(errno.ECONNREFUSED, "the app has ended")
        is_answer = self._has_asked(app, dest, peer) or await self._is_connected(app, dest, source)
        self._check(peer, app, source, dest, is_answer)
        if not await self._receives(app, source, dest):
            raise OSError(errno.ECONNREFUSED, "nobody receives there")
        await self.flows.accept(app, dest, peer, source, request.flow, is_answer=is_answer)
        self.askers.remember(source, app, peer)
        return FlowOpened()

    def _has_asked(self, app: App, near: Pair, peer: App) -> bool:
        asker = self.askers.find(near, peer)
        return asker is not None and asker.id == app.id

    async def _is_connected(self, app: App, near: Pair, far: Pair) -> bool:
        """Who is connected to a socket wants to hear of it: our predecessor may have let it."""
        home = self.apps.namespaces.get(app.id)
        if home is None or near[0].version != far[0].version:
            return False
        found = (await home.receivers()).find(far, near)
        return found is not None and (found.local, found.remote) == (near, far)

    def _check(self, peer: App, app: App, source: Pair, dest: Pair, is_answer: bool) -> None:
        plan = datagrams.plan_flow(self.apps.table, self.policing.policy, peer, app, source[0], *dest, asked=is_answer)
        facts = {"server": app, "address": dest[0], "port": dest[1], "proto": "udp"}
        if isinstance(plan, Refuse):
            self.apps.events.publish(Kind.REFUSE, peer, reason=plan.reason, error=plan.error, **facts)
            raise OSError(plan.error, plan.reason)
        if isinstance(plan, Deny):
            reason, rule = explain(plan.verdict, peer, app), plan.verdict.rule
            self.apps.events.publish(Kind.DENY, peer, rule=rule, reason=reason, error=errno.ECONNREFUSED, **facts)
            raise OSError(errno.ECONNREFUSED, reason)

    async def _receives(self, app: App, source: Pair, dest: Pair) -> bool:
        if not app.netns:
            await self.homes.of(app)
        home = self.apps.namespaces.get(app.id)
        if home is None:
            raise OSError(errno.EAGAIN, "its keeper hasn't come back to us yet")
        return (await home.receivers()).find(source, dest) is not None
