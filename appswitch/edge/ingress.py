"""Clients from outside: a connection that a gateway has accepted goes to an instance of the service that is exposed.

To one on this host it is handed over (edge/deliver.py): the program gets the accepted socket itself, so nobody is
between it and its client, and what it sees is the client's own address. To one on another host it goes by the relay
(edge/relayed.py). Whoever comes through has no identity: that the app is exposed is the permission.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack, suppress
from typing import Any

import structlog
from attrs import define, frozen

from appswitch.core.exposing import Gateway
from appswitch.core.route import Reach, Refuse
from appswitch.edge.apps import Apps
from appswitch.edge.arrivals import RESET
from appswitch.edge.deliver import Deliverer
from appswitch.edge.dial import Asked, Dial, Dialer, Dialled, Way
from appswitch.edge.gate import plain
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
            with await self.deliverer.address((plan.source, plan.port), asked, listener) as carrier:
                name = self.deliverer.deliver(carrier, None, listener, accepted)
            return Dialled(accepted, listener, name)

        return dial


@define
class Ingress:
    """Lets clients in. dialer: its ways are those of clients from outside."""

    gateway: Gateway
    apps: Apps
    policing: Policing
    dialer: Dialer

    async def admit(self, accepted: socket.socket, exposure: Exposure) -> None:
        """Has an instance take the connection, or resets it. accepted: non-blocking; closed here in the end."""
        with accepted:
            try:
                source, dest = _end(accepted.getpeername()), _end(accepted.getsockname())
            except OSError:  # it has been reset already
                return
            client = _Client(self, exposure, source, dest, accepted)
            plan = client.plan()
            if isinstance(plan, Refuse):
                server = plan.judged[0].listener.app if plan.judged else None
                kind = Kind.DENY if plan.denied else Kind.REFUSE
                client.publish(kind, server=server, rule=plan.rule, reason=plan.reason, error=plan.error)
                client.reset()
                return
            try:
                dialled = await self.dialer.connect(
                    plan, client.plan_again, Asked(None, dest, source[0].version, accepted=accepted)
                )
            except OSError as error:
                client.publish(Kind.REFUSE, reason=error.strerror, error=error.errno)
                client.reset()
            else:
                self._publish_connect(client, plan, dialled.listener)

    def _publish_connect(self, client: _Client, plan: Reach, listener: Listener) -> None:
        verdict = next((each.verdict for each in plan.judged if each.listener == listener), None)
        for kind in verdict.kinds if verdict else (Kind.CONNECT,):
            client.publish(kind, server=listener.app, medium="tcp", rule=verdict and verdict.rule)


@frozen
class _Client:
    """One that is being let in."""

    ingress: Ingress
    exposure: Exposure
    source: Pair
    dest: Pair
    accepted: socket.socket

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
    return plain(name[0]), name[1]
