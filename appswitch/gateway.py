"""What makes a host a gateway: `serve --gateway`, `--gateway-bind` and `--gateway-limit`, put together."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve, frozen

from appswitch.core.balance import Balancer
from appswitch.core.exposing import Gateway
from appswitch.core.limits import Limits, parse_limits
from appswitch.edge.apps import Apps
from appswitch.edge.deliver import Deliverer
from appswitch.edge.diag import Diag
from appswitch.edge.dial import Dialer, Way
from appswitch.edge.doors import Doors
from appswitch.edge.express import Express
from appswitch.edge.gate import Gate
from appswitch.edge.gateway_ports import GatewayPorts, OwnAddresses, choose_addresses
from appswitch.edge.ingress import HandOver, Ingress
from appswitch.edge.loads import Loads
from appswitch.edge.local_unix import LocalUnix
from appswitch.edge.passed import Passed
from appswitch.edge.peers import Peers
from appswitch.edge.policing import Policing
from appswitch.edge.relay import Relay
from appswitch.edge.relayed import Relayed
from appswitch.errors import AppSwitchError
from appswitch.model import Address, Node


@frozen
class Entrance:
    """Where a gateway listens, and what it lets in."""

    addresses: tuple[Address, ...]
    limits: Limits


def read_settings(gateway: bool, bind: Sequence[str], limits: Sequence[str]) -> Entrance | None:
    """From the command line; None: the host is no gateway. AppSwitchError `bad-gateway-bind`, `bad-limit`."""
    if gateway:
        return Entrance(choose_addresses(bind), parse_limits(limits))
    if bind:
        raise AppSwitchError("bad-gateway-bind", "--gateway-bind is for gateways", "give --gateway, too")
    if limits:
        raise AppSwitchError("bad-limit", "--gateway-limit is for gateways", "give --gateway, too")
    return None


def make(
    node: Node,
    entrance: Entrance,
    apps: Apps,
    policing: Policing,
    balancer: Balancer,
    loads: Loads,
    deliverer: Deliverer,
    relay: Relay,
    diag: Diag,
    remote: Way | None,
    peers: Peers,
) -> GatewayPorts:
    """Puts it together. diag: of our namespace; remote: the way to other nodes, if we are in a cluster."""
    addresses, limits = entrance.addresses, entrance.limits
    anywhere = any(each.is_unspecified for each in addresses)
    gateway = Gateway(node, OwnAddresses() if anywhere else addresses.__contains__)
    here = HandOver(deliverer, Relayed(LocalUnix(deliverer.named), relay, limits.idle))
    elsewhere = Relayed(remote, relay, limits.idle) if remote else None
    ingress = Ingress(gateway, apps, policing, Dialer(apps.table, balancer, loads, here, here, elsewhere))
    gate = Gate(limits, diag, lambda: ports.numbers())
    express = Express(gateway, apps, policing, balancer, deliverer, gate) if limits.first_byte is None else None
    doors = None
    if remote is not None and evolve(limits, idle=None) == Limits():
        passed = Passed(deliverer.names, apps.events)
        doors = Doors(gateway, apps, policing, balancer, peers, relay, passed, limits.idle)
        deliverer.names.flushes.append(doors.flush)
    ports = GatewayPorts(gateway, addresses, apps, ingress, gate, express, doors)
    return ports
