"""A gateway and apps of its host, for tests: all of one process."""

from __future__ import annotations

import random
import select
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import trio

from appswitch.core.balance import Balancer
from appswitch.core.exposing import Gateway
from appswitch.core.limits import Limits
from appswitch.core.service_table import ServiceTable
from appswitch.edge import gateway_ports
from appswitch.edge.apps import Apps
from appswitch.edge.deliver import Deliverer
from appswitch.edge.diag import Diag
from appswitch.edge.dial import Dialer
from appswitch.edge.epoch import Epoch
from appswitch.edge.events import Events
from appswitch.edge.express import Express
from appswitch.edge.gate import Gate
from appswitch.edge.gateway_ports import GatewayPorts
from appswitch.edge.ingress import HandOver, Ingress
from appswitch.edge.listeners import ListenerSockets
from appswitch.edge.loads import Loads
from appswitch.edge.local_unix import LocalUnix
from appswitch.edge.named import NamedSockets
from appswitch.edge.policing import Policing
from appswitch.edge.relay import Relay
from appswitch.edge.relayed import Relayed
from appswitch.edge.tcp_names import TcpNames
from appswitch.host import namespace
from appswitch.model import App, Expose, GatewayRecord, Listener, Node
from appswitch.wire import socknames

WEB, DB = ip_address("10.1.1.1"), ip_address("10.1.1.2")
V4, V6 = ip_address("127.0.0.1"), ip_address("::1")
PATIENCE = 5.0


class World:
    """A gateway on loopback, and apps of its host."""

    def __init__(self, directory: Path, stack: ExitStack, limits: Limits | None = None) -> None:
        self.stack = stack
        self.table = ServiceTable("n1")
        self.sockets = ListenerSockets(directory / "listeners")
        stack.callback(self.sockets.close)
        epoch = Epoch()
        stack.callback(epoch.close)
        self.events = Events("n1")
        self.apps = Apps(self.table, self.sockets, epoch, self.events)
        self.names = TcpNames()
        named = NamedSockets(self.sockets, self.apps.listener_gone, random.Random(1), self.names.is_taken)
        relay = Relay()
        stack.callback(relay.close)
        deliverer, self.policing, balancer = Deliverer(named, self.names), Policing(), Balancer(self.table)
        here = HandOver(deliverer, Relayed(LocalUnix(named), relay))
        gateway = Gateway(Node("n1", gateway=True), gateway_ports.OwnAddresses())
        ingress = Ingress(
            gateway,
            self.apps,
            self.policing,
            Dialer(self.table, balancer, Loads(self.names.connections), here, here),
        )
        diag = Diag(stack.enter_context(namespace.open_diag_socket()))
        gate = Gate(limits or Limits(), diag, lambda: self.ports.numbers())
        self.express = Express(gateway, self.apps, self.policing, balancer, deliverer, gate)
        self.ports = GatewayPorts(gateway, (V4, V6), self.apps, ingress, gate)

    def new_app(self, *exposes: Expose, name: str = "web", **identity: Any) -> App:
        return self.apps.new_app(name=name, ip=WEB if name == "web" else DB, exposes=exposes, **identity)

    def serve(self, app: App, ip: str = "0.0.0.0", family: int = 4, backlog: int = 16) -> socket.socket:
        """What an app gets for a listening socket at port 80."""
        listener = Listener(self.table.next_listener_id(), app, family, ip_address(ip), 80, listening=True)
        listening = self.stack.enter_context(self.sockets.open(listener))
        listening.listen(backlog)
        listening.settimeout(PATIENCE)
        self.table.add_listener(listener)
        self.apps.services_changed()
        return listening

    def close(self, listening: socket.socket) -> None:
        """The sweep finds it."""
        listening.close()
        for each in list(self.table.listeners.values()):
            if not self.sockets.alive(each.id):
                self.apps.listener_gone(each)

    def records(self) -> list[GatewayRecord]:
        return list(self.table.gateways.get("n1", {}).values())


@asynccontextmanager
async def running(world: World) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        await nursery.start(world.ports.run)
        await settled()
        try:
            yield
        finally:
            nursery.cancel_scope.cancel()


async def settled() -> None:
    await trio.testing.wait_all_tasks_blocked()


async def all_are_accepted(world: World) -> None:
    """And those that their instance didn't take are being brought to one."""
    listening = [port.sockets[each] for port in world.ports._open.values() for each in port.accepting]
    while select.select(listening, [], [], 0)[0]:  # noqa: ASYNC110 - the thread announces nothing
        await trio.sleep(0.01)
    await trio.sleep(0.05)
    await settled()


def connect(port: int, ip: str = str(V4)) -> socket.socket:
    return socket.create_connection((ip, port), PATIENCE)


def is_refused(port: int, ip: str = str(V4)) -> bool:
    try:
        connect(port, ip).close()
    except ConnectionRefusedError:
        return True
    return False


async def accept(listening: socket.socket) -> tuple[socket.socket, socknames.ClientName]:
    """As the shim does it: the socket that was delivered, and what it is called."""
    carrier, _ = await trio.to_thread.run_sync(listening.accept)
    with carrier:
        name = socknames.read_client_name(carrier.getpeername())
        assert name is not None
        _, fds, _, _ = socket.recv_fds(carrier, 1, 1)
        return socket.socket(fileno=fds[0]), name
