"""What makes a host a gateway: `serve --gateway` and `--gateway-bind`, put together."""

from __future__ import annotations

from collections.abc import Sequence

from appswitch.core.balance import Balancer
from appswitch.core.exposing import Gateway
from appswitch.edge.apps import Apps
from appswitch.edge.deliver import Deliverer
from appswitch.edge.dial import Dialer, Way
from appswitch.edge.gateway_ports import GatewayPorts, is_own
from appswitch.edge.ingress import HandOver, Ingress
from appswitch.edge.loads import Loads
from appswitch.edge.policing import Policing
from appswitch.errors import AppSwitchError
from appswitch.model import Address, Node


def check_settings(gateway: bool, bind: Sequence[str]) -> None:
    """AppSwitchError `bad-gateway-bind`."""
    if bind and not gateway:
        raise AppSwitchError("bad-gateway-bind", "--gateway-bind is for gateways", "give --gateway, too")


def make(
    node: Node,
    addresses: tuple[Address, ...],
    apps: Apps,
    policing: Policing,
    balancer: Balancer,
    loads: Loads,
    deliverer: Deliverer,
    remote: Way | None,
) -> GatewayPorts:
    """Puts it together. addresses: where it listens; remote: the way to instances on other nodes."""
    anywhere = any(each.is_unspecified for each in addresses)
    gateway = Gateway(node, is_own if anywhere else addresses.__contains__)
    here = HandOver(deliverer)
    ingress = Ingress(gateway, apps, policing, Dialer(apps.table, balancer, loads, here, here, remote))
    return GatewayPorts(gateway, addresses, apps, ingress)
