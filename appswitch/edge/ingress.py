"""Clients from outside: a connection that a gateway has accepted goes to an instance of the service that is exposed.

To one on this host it is handed over (edge/deliver.py): the program gets the accepted socket itself, so nobody is
between it and its client, and what it sees is the client's own address. To one on another host it goes by the relay
(edge/relayed.py). Whoever comes through has no identity: that the app is exposed is the permission.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack, suppress
from ipaddress import ip_address
from typing import Any

import structlog
import trio
from attrs import define, frozen

from appswitch.core.balance import by_connections
from appswitch.core.exposing import Gateway
from appswitch.core.route import Reach, Refuse
from appswitch.edge.apps import Apps
from appswitch.edge.arrivals import RESET
from appswitch.edge.deliver import Deliverer
from appswitch.edge.dial import Asked, Dial, Dialer, Dialled, Way
from appswitch.edge.policing import Policing
from appswitch.edge.relayed import wants_head
from appswitch.model import Address, Exposure, Kind, Listener

Pair = tuple[Address, int]

log = structlog.get_logger()


@define
class HandOver:
    """The way to an instance here: it gets the accepted socket. Dialled.client is our descriptor of it, then.

    headed: the way to one that can't have it (edge/relayed.py).
    """

    deliverer: Deliverer
    headed: Way

    def begin(self, asked: Asked, closing: ExitStack) -> Dial:
        """As of Way."""
        accepted = asked.accepted
        assert accepted is not None
        dial_headed = self.headed.begin(asked, closing)

        async def dial(plan: Reach, listener: Listener) -> Dialled:
            if wants_head(listener):
                return await dial_headed(plan, listener)
            name = self.deliverer.hand_over((plan.source, plan.port), asked, listener, accepted)
            return Dialled(accepted, listener, name)

        return dial


@define
class Ingress:
    """Lets clients in. deliverer: to instances here; dialer: to all, its ways are those of clients from outside."""

    gateway: Gateway
    apps: Apps
    policing: Policing
    deliverer: Deliverer
    dialer: Dialer

    def admit_at_once(self, accepted: socket.socket, exposure: Exposure) -> bool:
        """Has an instance here take it, which is the rule; False: that can't be now, and nothing is done.

        It does what `admit` does, in a third of the time: no task of its own, no second instance.
        """
        client = self._client(accepted, exposure)
        plan = client.plan() if client else None
        if client is None or not isinstance(plan, Reach) or not all(map(self._may_have_it, plan.candidates)):
            return False
        if by_connections(plan.candidates):
            return False
        listener = self.dialer.balancer.order(plan.candidates, trio.current_time())[0]
        try:
            self.deliverer.hand_over(client.source, client.asked, listener, accepted)
        except OSError:
            return False
        self.dialer.balancer.worked(listener)
        self._publish_connect(client, plan, listener)
        return True

    def _may_have_it(self, listener: Listener) -> bool:
        return self.apps.table.is_local(listener.app) and listener.outside is None and not wants_head(listener)

    def _client(self, accepted: socket.socket, exposure: Exposure) -> _Client | None:
        """None: it has been reset already."""
        try:
            return _Client(self, exposure, _end(accepted.getpeername()), _end(accepted.getsockname()), accepted)
        except OSError:
            return None

    async def admit(self, accepted: socket.socket, exposure: Exposure) -> None:
        """Has an instance take the connection, or resets it. accepted: non-blocking; closed here in the end."""
        with accepted:
            client = self._client(accepted, exposure)
            if client is None:
                return
            plan = client.plan()
            if isinstance(plan, Refuse):
                server = plan.judged[0].listener.app if plan.judged else None
                kind = Kind.DENY if plan.denied else Kind.REFUSE
                client.publish(kind, server=server, rule=plan.rule, reason=plan.reason, error=plan.error)
                client.reset()
                return
            try:
                dialled = await self.dialer.connect(plan, client.plan_again, client.asked)
            except OSError as error:
                client.publish(Kind.REFUSE, reason=error.strerror, error=error.errno)
                client.reset()
            else:
                self._publish_connect(client, plan, dialled.listener)

    def _publish_connect(self, client: _Client, plan: Reach, listener: Listener) -> None:
        verdict = next((each.verdict for each in plan.judged if each.listener == listener), None)
        for kind in (Kind.CONNECT, Kind.AUDIT) if verdict and verdict.audit else (Kind.CONNECT,):
            client.publish(kind, server=listener.app, medium="tcp", rule=verdict and verdict.rule)


@frozen
class _Client:
    """One that is being let in."""

    ingress: Ingress
    exposure: Exposure
    source: Pair
    dest: Pair
    accepted: socket.socket

    @property
    def asked(self) -> Asked:
        return Asked(None, self.dest, self.source[0].version, accepted=self.accepted)

    def plan(self) -> Reach | Refuse:
        ingress = self.ingress
        return ingress.gateway.plan_ingress(ingress.apps.table, ingress.policing.policy, self.exposure, self.source)

    def plan_again(self) -> Reach:
        """OSError: nowhere any more, or the client has gone."""
        with suppress(BlockingIOError):
            self.accepted.recv(1, socket.MSG_PEEK)  # the end of what it sends may be half a close
        plan = self.plan()
        if isinstance(plan, Refuse):
            raise OSError(plan.error, plan.reason)
        return plan

    def publish(self, kind: Kind, **facts: Any) -> None:
        ip, port = self.dest
        self.ingress.apps.events.publish(kind, address=ip, port=port, proto="tcp", source=self.source, **facts)

    def reset(self) -> None:
        with suppress(OSError):
            self.accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def _end(name: tuple[str, int]) -> Pair:
    return ip_address(name[0].partition("%")[0]), name[1]
