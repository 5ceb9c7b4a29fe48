"""What apps expose to clients outside, and what a gateway has to open for them (docs/gateways.md).

`spawn --expose` is a property of an app (Expose), so the service table of each node has it. A gateway opens an Exposure
for each service that some app exposes there: apps that expose the same one are instances of it. Where two services want
the same port, the one that was exposed first has it, and all nodes see that alike.
"""

from __future__ import annotations

import errno
import hashlib
import re
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address

from attrs import frozen

from appswitch.core import route
from appswitch.core.balance import by_connections
from appswitch.core.policy import Policy, explain
from appswitch.core.route import Judged, Reach, Refuse
from appswitch.core.service_table import ServiceTable, claim
from appswitch.errors import AppSwitchError
from appswitch.model import Address, App, Expose, Exposure, Listener, Node, Outside, Protocol, Scope

EXPOSE_FORM = "PORT, PORT:GATEWAY_PORT or PORT:GATEWAY:GATEWAY_PORT, for example 80:8080 or 80:10.0.0.1:8080"

CHOICE = range(20000, 32768)
"""Of ports, where an app names none: below those that clients have (ip(7), ip_local_port_range)."""

ANYBODY: dict[int, Address] = {4: IPv4Address(0), 6: IPv6Address(0)}
"""A client outside whose address makes no difference, by the IP version."""

_FORM = re.compile(r"([0-9]{1,5})(?::(?:(\[[^]]+\]|[^:\[\]]+):)?([0-9]{1,5}))?(/(?:tcp|udp|proxy))?")


def parse_expose(text: str) -> Expose:
    """What `--expose` says. AppSwitchError `bad-expose` when that can't be done."""
    match = _FORM.fullmatch(text)
    port, gateway, gateway_port, suffix = match.groups() if match else ("0", None, None, None)
    ports = [int(port), int(gateway_port or port)]
    if not all(0 < each < 65536 for each in ports):
        raise AppSwitchError("bad-expose", f"{text!r} is nothing that can be exposed", EXPOSE_FORM)
    if suffix == "/udp":
        raise AppSwitchError("bad-expose", f"{text!r}: gateways let in TCP only", "UDP can't be exposed")
    return Expose(ports[0], ports[1] if gateway_port else None, gateway and _plain(gateway), suffix == "/proxy")


def _plain(gateway: str) -> str:
    """An address in its usual form; the name of a node as it is."""
    try:
        return str(ip_address(gateway.strip("[]")))
    except ValueError:
        return gateway


@frozen
class Gateway:
    """A node that lets clients in. is_own: whether an address is one of its host's."""

    node: Node
    is_own: Callable[[Address], bool]

    def is_meant(self, expose: Expose) -> bool:
        """Whether an app wants to be reached through this one."""
        if expose.gateway in (None, self.node.name, self.node.address):
            return True
        try:
            return expose.gateway is not None and self.is_own(ip_address(expose.gateway))
        except ValueError:
            return False

    def exposures(self, table: ServiceTable) -> Iterator[tuple[Exposure, Exposure | None]]:
        """What is to be opened, each once, the oldest first; and the other one that has its port."""
        seen: set[Exposure] = set()
        by_port: dict[int, Exposure] = {}
        for app in sorted(table.exposing.values(), key=claim):
            for each in filter(self.is_meant, app.exposes):
                exposure = Exposure(app.ip, each.port, each.gateway_port)
                if exposure not in seen:
                    seen.add(exposure)
                    owner = by_port.setdefault(each.gateway_port, exposure) if each.gateway_port else exposure
                    yield exposure, None if owner == exposure else owner

    def instances(self, table: ServiceTable, exposure: Exposure, version: int) -> list[Listener]:
        """Those that take connections over IP `version` (4 or 6)."""
        found = [
            each
            for each in table.at_port(exposure.ip, exposure.port)
            if each.listening
            and each.scope is Scope.PUBLIC
            and route.serves(each, each.app.source(version), inside=False)
            and each.app.id not in table.draining
            and self.expose_of(each.app, exposure)
        ]
        return route.most_specific(found, found[0].app.source(version)) if found else []

    def expose_of(self, app: App, exposure: Exposure) -> Expose | None:
        """How `app` exposes it here; None: it doesn't."""
        asked = (exposure.ip, exposure.port, exposure.gateway_port)
        same = (each for each in app.exposes if (app.ip, each.port, each.gateway_port) == asked)
        return next(filter(self.is_meant, same), None)

    def plan_ingress(
        self, table: ServiceTable, policy: Policy, exposure: Exposure, client: tuple[Address, int]
    ) -> Reach | Refuse:
        """Where a connection of `client`, which is outside, goes."""
        host = Outside(client[0])
        found = self.instances(table, exposure, client[0].version)
        judged = tuple(Judged(each, policy.decide(host, each.app, exposure.port)) for each in found)
        allowed = [each.listener for each in judged if each.verdict.allowed]
        answering = [each for each in allowed if each.app.node not in table.unreachable]
        if allowed:
            return Reach(*client, tuple(answering or allowed), judged)
        if judged:
            verdict = judged[0].verdict
            return Refuse(errno.ECONNREFUSED, explain(verdict, host, judged[0].listener.app), judged, verdict)
        return Refuse(errno.ECONNREFUSED, f"nothing that is exposed listens on {exposure.ip} port {exposure.port}")

    def plan_anybody(self, table: ServiceTable, policy: Policy, exposure: Exposure, version: int) -> Reach | None:
        """Where all clients outside of an IP version go; None: there is something to be decided for each."""
        plan = self.plan_ingress(table, policy, exposure, (ANYBODY[version], 0))
        if isinstance(plan, Refuse) or plan.audited or by_connections(plan.candidates) or policy.looks_at_clients:
            return None
        return plan


def exposed_at(table: ServiceTable, listener: Listener) -> list[tuple[Address, int]]:
    """Where gateways that answer let clients in to the service that it is an instance of; nothing: it isn't exposed."""
    app = listener.app
    if listener.scope is not Scope.PUBLIC or listener.protocol is not Protocol.TCP:
        return []
    exposures = {Exposure(app.ip, each.port, each.gateway_port) for each in app.exposes if each.port == listener.port}
    answering = [told for node, told in sorted(table.gateways.items()) if node not in table.unreachable]
    opened = [record for told in answering for record in told.values()]
    bound = [each for each in table.at_port(app.ip, listener.port) if each.app.id == app.id and each.listening]
    versions = {version for each in bound for version in each.versions}
    places = [place for record in opened if record.exposure in exposures for place in record.places]
    return [(ip, port) for ip, port in places if ip.version in versions]


def is_exposed_by(table: ServiceTable, gateway: str, listener: Listener) -> bool:
    """Whether that node, as it says, lets clients in to the service that `listener` is an instance of."""
    app = listener.app
    exposures = {Exposure(app.ip, each.port, each.gateway_port) for each in app.exposes if each.port == listener.port}
    records = table.gateways.get(gateway, {}).values()
    return listener.scope is Scope.PUBLIC and any(each.exposure in exposures and each.places for each in records)


def choice_of_ports(exposure: Exposure) -> Iterator[int]:
    """Ports for one that may have any, all of them, in its own order: where it is opened again, it has the same."""
    start = int.from_bytes(hashlib.blake2b(f"{exposure.ip}:{exposure.port}".encode(), digest_size=8).digest(), "big")
    for step in range(len(CHOICE)):
        yield CHOICE[(start + step) % len(CHOICE)]
