"""Clients from outside: a connection that a gateway has accepted goes to an instance of the service that is exposed.

To one on this host it is handed over (edge/deliver.py): the program gets the accepted socket itself, so nobody is
between it and its client, and what it sees is the client's own address. Whoever comes through has no identity: that the
app is exposed is the permission.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack, suppress
from ipaddress import ip_address
from typing import Any

import structlog
from attrs import define

from appswitch.core.exposing import Gateway
from appswitch.core.route import Reach
from appswitch.edge.apps import Apps
from appswitch.edge.arrivals import RESET
from appswitch.edge.deliver import Deliverer
from appswitch.edge.dial import Asked, Dial, Dialer, Dialled
from appswitch.model import Address, Exposure, Kind, Listener

Pair = tuple[Address, int]

log = structlog.get_logger()


@define
class HandOver:
    """The way to an instance here: it gets the accepted socket. Dialled.client is our descriptor of it, then."""

    deliverer: Deliverer

    def begin(self, asked: Asked, _closing: ExitStack) -> Dial:
        """As of Way."""
        accepted = asked.accepted
        assert accepted is not None

        async def dial(plan: Reach, listener: Listener) -> Dialled:
            with await self.deliverer.address((plan.source, plan.port), asked, listener) as carrier:
                name = self.deliverer.deliver(carrier, None, listener, accepted)
            return Dialled(accepted, listener, name)

        return dial


@define
class Ingress:
    """Lets clients in. dialer: its ways are those of clients from outside."""

    gateway: Gateway
    apps: Apps
    dialer: Dialer

    async def admit(self, accepted: socket.socket, exposure: Exposure) -> None:
        """Has an instance take the connection, or resets it. accepted: non-blocking; closed here in the end."""
        with accepted:
            try:
                source, dest = _end(accepted.getpeername()), _end(accepted.getsockname())
            except OSError:  # it has been reset already
                return
            asked = Asked(None, dest, source[0].version, accepted=accepted)
            facts: dict[str, Any] = {"address": dest[0], "port": dest[1], "proto": "tcp", "source": source}
            try:
                dialled = await self.dialer.connect(
                    self._plan(exposure, source), lambda: self._plan_again(exposure, source, accepted), asked
                )
            except OSError as error:
                self.apps.events.publish(Kind.REFUSE, reason=error.strerror, error=error.errno, **facts)
                with suppress(OSError):
                    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            else:
                self.apps.events.publish(Kind.CONNECT, medium="tcp", server=dialled.listener.app, **facts)

    def _plan(self, exposure: Exposure, source: Pair) -> Reach:
        """OSError: nowhere."""
        plan = self.gateway.plan_ingress(self.apps.table, exposure, source)
        if isinstance(plan, Reach):
            return plan
        raise OSError(plan.error, plan.reason)

    def _plan_again(self, exposure: Exposure, source: Pair, accepted: socket.socket) -> Reach:
        """OSError: nowhere any more, or the client has gone."""
        with suppress(BlockingIOError):
            accepted.recv(1, socket.MSG_PEEK)  # the end of what it sends may be half a close
        return self._plan(exposure, source)


def _end(name: tuple[str, int]) -> Pair:
    return ip_address(name[0].partition("%")[0]), name[1]
