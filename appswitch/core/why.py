"""`appswitch why`: the plan of a connect, told instead of carried out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from ipaddress import ip_address

from attrs import frozen

from appswitch.core import datagrams, route
from appswitch.core.datagrams import Deny, Lost, Place, Relay
from appswitch.core.exposing import exposed_at
from appswitch.core.policy import Policy, explain
from appswitch.core.route import LOOPBACK, Egress, Judged, Kernel, Reach, Refuse
from appswitch.core.service_table import ServiceTable, plain_name
from appswitch.errors import AppSwitchError
from appswitch.model import DNS_PORT, Address, App, Outside, Party, Protocol

Ways = tuple[bool, Collection[str]]
"""Whether this host is a gateway, and the other nodes that are."""

DNS = "AppSwitch's DNS server answers in the app's namespace, whatever the address"


@frozen
class Told:
    """verdict: in a word; reason: where that isn't in `judged`; judged: who serves there; rule: of a server outside."""

    verdict: str
    reason: str | None = None
    judged: tuple[Judged, ...] = ()
    rule: str | None = None


@frozen
class Why:
    """clients: the apps that the question may be about, the first of which is the one that the answer is for; or a host
    outside.
    """

    clients: tuple[Party, ...]
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

    @property
    def rule(self) -> str | None:
        """The name of what decides."""
        return self.decisive.verdict.rule if self.decisive else self.told.rule


def why(
    table: ServiceTable,
    policy: Policy,
    client: str,
    dest: str | Sequence[Outside],
    port: int,
    protocol: Protocol,
    *,
    gateway: bool,
    gateways: Collection[str] = (),
) -> Why:
    """What a connect of `client` (an id, a name or an IP) to `dest` would come to: an app's name, an IP, or what a name
    outside stands for. Of several the first one that may be reached, since a client tries all.

    A client's IP that no app has is that of one outside, who comes to an app through a gateway. AppSwitchError
    `unknown-app` or `unknown-name` when there is none.
    """
    clients = tuple(table.apps_called(client))
    outside = None if clients else _host(client)
    if not clients and outside is None:
        raise AppSwitchError("unknown-app", f"there is no app {client!r}", "`appswitch ps` lists the apps")
    if isinstance(dest, str):
        ip = address_of(table, dest)
        if ip is None:
            raise AppSwitchError("unknown-name", f"no app is named {dest!r}", "`appswitch ps` lists the apps")
        dest = [Outside(ip)]
    if outside is not None:
        ip = dest[0].ip
        return Why((outside,), ip, port, protocol, _tell_ingress(table, policy, outside, ip, port, protocol))
    tell = _tell_udp if protocol is Protocol.UDP else _tell_tcp
    ways = gateway, gateways
    told = [Why(clients, each.ip, port, protocol, tell(table, policy, clients[0], each, port, ways)) for each in dest]
    return next((each for each in told if each.allowed), told[0])


def _tell_tcp(table: ServiceTable, policy: Policy, client: App, dest: Outside, port: int, ways: Ways) -> Told:
    gateway, gateways = ways
    plan = route.plan_connect(
        table, policy, client, dest.ip, port, gateway=gateway, gateways=gateways, names=dest.names
    )
    match plan:
        case Reach():
            return Told("audit" if plan.audited else "allow", judged=plan.judged)
        case Egress():
            return _tell_egress(plan, client)
        case Kernel():
            return Told("dns", DNS)
        case Refuse():
            return Told("deny" if plan.denied else "unreachable", plan.reason, plan.judged, plan.rule)


def _host(text: str) -> Outside | None:
    try:
        return Outside(ip_address(text))
    except ValueError:
        return None


def _tell_ingress(
    table: ServiceTable, policy: Policy, client: Outside, ip: Address, port: int, protocol: Protocol
) -> Told:
    """As the table has those instances that gateways let clients in to, by the client's version of IP."""
    judged = tuple(
        Judged(each, policy.decide(client, each.app, port))
        for each in table.at_port(ip, port, protocol)
        if each.listening and any(place.version == client.ip.version for place, _ in exposed_at(table, each))
    )
    verdicts = [each.verdict for each in judged]
    if any(each.allowed for each in verdicts):
        return Told("audit" if any(each.audit for each in verdicts) else "allow", judged=judged)
    if judged:
        return Told("deny", explain(verdicts[0], client, judged[0].listener.app), judged)
    return Told("unreachable", f"no gateway lets clients outside in to {ip} port {port}/{protocol.value}")


def _tell_egress(plan: Egress, client: App) -> Told:
    if plan.bypass is not None:
        reason = (
            f"--bypass {plan.bypass} leaves it to this host's network; {explain(plan.verdict, client, plan.server)}"
        )
        return Told("audit" if plan.verdict.audit else "bypass", reason, rule=plan.verdict.rule)
    by = f"the gateway {' or '.join(sorted(plan.gateways))}" if plan.gateways else "this host"
    reason = f"no app has this address: it is reached by way of {by}; {explain(plan.verdict, client, plan.server)}"
    return Told("audit" if plan.verdict.audit else "outside", reason, rule=plan.verdict.rule)


def _tell_udp(table: ServiceTable, policy: Policy, client: App, dest: Outside, port: int, ways: Ways) -> Told:
    """As the table has the receivers; whether they are there just now, only the kernel knows."""
    ip = datagrams.destination(dest.ip)
    inside = route.is_own(client, ip)
    bound = table.at_port(client.ip if inside else ip, port, Protocol.UDP)
    receivers = [each for each in bound if inside or not each.ip.is_loopback]
    judged = tuple(Judged(each, policy.decide(client, each.app, port, Protocol.UDP.value)) for each in receivers)
    serving = {each.app.id for each in receivers}
    nobody = f"nothing receives at {ip} port {port}"
    plan = datagrams.plan_datagrams(
        table,
        policy,
        client,
        ip,
        port,
        serving=serving,
        asker=None,
        turn=0,
        gateway=ways[0],
        gateways=ways[1],
        names=dest.names,
    )
    match plan:
        case Place(heard=True) | Relay(heard=True):
            audited = any(each.verdict.audit for each in judged)
            return Told("audit" if audited else "allow", judged=judged)
        case Kernel() if client.id in serving:
            return Told("allow", judged=tuple(each for each in judged if each.listener.app.id == client.id))
        case Kernel() if port == DNS_PORT:
            return Told("dns", DNS)
        case Egress():
            return _tell_egress(plan, client)
        case Deny():
            return Told("deny", explain(plan.verdict, client, plan.server), judged, plan.verdict.rule)
        case Refuse():
            return Told("unreachable", plan.reason)
        case Place() | Relay() | Kernel() | Lost():
            return Told("unreachable", nobody)


def address_of(table: ServiceTable, text: str) -> Address | None:
    """What a person means by an IP or a name; None: no app has this name."""
    if plain_name(text) == "localhost":
        return LOOPBACK[4]
    try:
        return ip_address(text)
    except ValueError:
        return table.resolve(plain_name(text))
