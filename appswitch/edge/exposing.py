"""Exposing an app: before its program starts, the gateways that it wants to be reached through open its ports, or say
why not (edge/gateway_ports.py).

They would do so anyway, as soon as they hear of the app; whoever starts it is told here, and doesn't start when a port
is taken. Where no gateway is there, or one doesn't answer, the port is open once it is.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable

import structlog
import trio
from attrs import define

from appswitch.edge.gateway_ports import GatewayPorts
from appswitch.edge.nodes import Nodes
from appswitch.edge.peer_channel import Caller, UnreachableError
from appswitch.edge.peers import Peers
from appswitch.errors import AppSwitchError
from appswitch.model import App, Expose, GatewayRecord
from appswitch.wire import records
from appswitch.wire.addresses import place
from appswitch.wire.peer import OpenPorts, PortsOpened

ANSWERS_WITHIN = 3.0  # seconds
PAUSE = 0.1  # seconds until a gateway that hasn't heard of the app is asked again

log = structlog.get_logger()


@define
class Exposing:
    """For the apps of this node. ports: of this node, if it is a gateway; peers: None: there are no other nodes."""

    nodes: Nodes
    ports: GatewayPorts | None = None
    peers: Peers | None = None

    async def open(self, app: App) -> list[str]:
        """For whoever starts `app`: where it can be reached, and where not yet. AppSwitchError `port-taken`."""
        opened: dict[str, list[GatewayRecord]] = {}
        silent: list[str] = []
        if self.ports is not None:
            opened[self.nodes.own.name] = self.ports.records_for(app)
        async with trio.open_nursery() as nursery:
            for node in self.nodes.gateways():
                nursery.start_soon(self._ask, node, app, opened, silent)
        said = [_tell(each, opened, bool(silent)) for each in app.exposes]
        warnings = [
            f"warning: gateway {node} doesn't answer: it opens its ports once it does" for node in sorted(silent)
        ]
        return [*filter(None, said), *warnings]

    async def _ask(self, node: str, app: App, opened: dict[str, list[GatewayRecord]], silent: list[str]) -> None:
        try:
            with trio.fail_after(ANSWERS_WITHIN):
                opened[node] = await self._open_at(node, app)
        except (OSError, trio.TooSlowError, AppSwitchError) as error:
            log.warning("a gateway doesn't open its ports", node=node, app=app.number, reason=str(error))
            silent.append(node)

    async def _open_at(self, node: str, app: App) -> list[GatewayRecord]:
        """OSError; AppSwitchError."""
        assert self.peers is not None
        while True:
            try:
                answer = await self.peers.ask(node, OpenPorts(app.number), ANSWERS_WITHIN)
            except OSError as error:
                if error.errno != errno.EAGAIN:
                    raise
                await trio.sleep(PAUSE)
            else:
                if not isinstance(answer, PortsOpened):
                    raise UnreachableError(errno.EPROTO, "it answers something else")
                return [records.decode_gateway(node, each) for each in answer.records]


def _tell(expose: Expose, opened: dict[str, list[GatewayRecord]], some_silent: bool) -> str:
    """Nothing, where only those that are silent may know. AppSwitchError: a gateway can't have the port."""
    places = []
    for node, told in sorted(opened.items()):
        for each in told:
            if (each.exposure.port, each.exposure.gateway_port) == (expose.port, expose.gateway_port):
                if each.error is not None:
                    raise AppSwitchError(
                        "port-taken",
                        f"port {expose.port} can't be exposed: gateway {node} says: {each.error}",
                        f"another port, or --expose {expose.port}: the gateway chooses one",
                    )
                places += [place(*each) for each in each.places]
    if places:
        return f"port {expose.port} is exposed at {' and '.join(places)}"
    if some_silent:
        return ""
    gateway = f"gateway {expose.gateway}" if expose.gateway else "gateway"
    return f"warning: no {gateway} is there yet: port {expose.port} is exposed once one is"


@define
class PortsOpener:
    """Opens the ports of this gateway for other nodes. app_of: an app by its node and number (edge/arrivals.py)."""

    ports: GatewayPorts
    app_of: Callable[[str, int], Awaitable[App]]

    async def answer(self, caller: Caller, said: OpenPorts) -> PortsOpened:
        """Of Peers.handlers. OSError EAGAIN: the app isn't known here yet."""
        app = await self.app_of(caller.node, said.app)
        return PortsOpened([records.encode(each) for each in self.ports.records_for(app)])
