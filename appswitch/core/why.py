"""`appswitch why`: the plan of a connect, told instead of carried out."""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import ip_address

from attrs import frozen

from appswitch.core import datagrams, route
from appswitch.core.datagrams import Deny, Lost, Place, Relay
from appswitch.core.policy import Policy, explain
from appswitch.core.route import DNS_PORT, LOOPBACK, Egress, Judged, Kernel, Reach, Refuse
from appswitch.core.service_table import ServiceTable, plain_name
from appswitch.errors import AppSwitchError
from appswitch.model import Address, App, Protocol

DNS = "AppSwitch's DNS server answers in the app's namespace, whatever the address"


@frozen
class Told:
    """verdict: in a word; reason: where policy has nothing to do with it; judged: who serves there."""

    verdict: str
    reason: str | None = None
    judged: tuple[Judged, ...] = ()


@frozen
class Why:
    """clients: the apps that the question may be about, the first of which is the one that the answer is for."""

    clients: tuple[App, ...]
    ip: Address
    port: int
    protocol: Protocol
    told: Told

    @property
    def allowed(self) -> bool:
        """Whether it would go through."""
        return self.told.verdict not in ("deny", "unreachable")

    @property
    def decisive(self) -> Judged | None:
        """The first instance that may be reached, else the first one that may not."""
        judged = self.told.judged
        return next((each for each in judged if each.verdict.allowed), judged[0] if judged else None)


def why(
    table: ServiceTable,
    policy: Policy,
    client: str,
    dest: str,
    port: int,
    protocol: Protocol,
    *,
    gateway: bool,
    gateways: Collection[str] = (),
) -> Why:
    """What a connect of `client` (an id, a name or an IP) to `dest` (a name or an IP) would come to.

    AppSwitchError `unknown-app` or `unknown-name` when there is none.
    """
    clients = tuple(table.apps_called(client))
    if not clients:
        raise AppSwitchError("unknown-app", f"there is no app {client!r}", "`appswitch ps` lists the apps")
    ip = _address(table, dest)
    if ip is None:
        raise AppSwitchError("unknown-name", f"no app is named {dest!r}", "`appswitch ps` lists the apps")
    tell = _tell_udp if protocol is Protocol.UDP else _tell_tcp
    return Why(clients, ip, port, protocol, tell(table, policy, clients[0], ip, port, gateway, gateways))


def _tell_tcp(
    table: ServiceTable, policy: Policy, client: App, ip: Address, port: int, gateway: bool, gateways: Collection[str]
) -> Told:
    match route.plan_connect(table, policy, client, ip, port, gateway=gateway, gateways=gateways):
        case Reach() as plan:
            return Told("audit" if plan.audited else "allow", judged=plan.judged)
        case Egress() as plan:
            return Told("outside", _outside(plan))
        case Kernel():
            return Told("dns", DNS)
        case Refuse() as plan:
            return Told("deny" if plan.denied else "unreachable", plan.reason, plan.judged)


def _tell_udp(
    table: ServiceTable, policy: Policy, client: App, ip: Address, port: int, gateway: bool, gateways: Collection[str]
) -> Told:
    """As the table has the receivers; whether they are there just now, only the kernel knows."""
    ip = datagrams.destination(ip)
    inside = route.is_own(client, ip)
    bound = table.at_port(client.ip if inside else ip, port, Protocol.UDP)
    receivers = [each for each in bound if inside or not each.ip.is_loopback]
    judged = tuple(Judged(each, policy.decide(client, each.app, port, Protocol.UDP.value)) for each in receivers)
    serving = {each.app.id for each in receivers}
    nobody = f"nothing receives at {ip} port {port}"
    plan = datagrams.plan_datagrams(
        table, policy, client, ip, port, serving=serving, asker=None, turn=0, gateway=gateway, gateways=gateways
    )
    match plan:
        case Place(heard=True) | Relay(heard=True):
            audited = any(each.verdict.audit for each in judged)
            return Told("audit" if audited else "allow", judged=judged)
        case Kernel() if client.id in serving:
            return Told("allow", judged=tuple(each for each in judged if each.listener.app.id == client.id))
        case Kernel() if port == DNS_PORT:
            return Told("dns", DNS)
        case Egress() as plan:
            return Told("outside", _outside(plan))
        case Deny():
            return Told("deny", explain(plan.verdict, client, plan.server), judged)
        case Refuse():
            return Told("unreachable", plan.reason)
        case Place() | Relay() | Kernel() | Lost():
            return Told("unreachable", nobody)


def _outside(plan: Egress) -> str:
    by = f"the gateway {' or '.join(sorted(plan.gateways))}" if plan.gateways else "this host"
    return f"no app has this address: it is reached by way of {by}, and no rule is asked"


def _address(table: ServiceTable, text: str) -> Address | None:
    if plain_name(text) == "localhost":
        return LOOPBACK[4]
    try:
        return ip_address(text)
    except ValueError:
        return table.resolve(plain_name(text))
