"""What apps expose to clients outside, and what a gateway has to open for them (docs/gateways.md).

`spawn --expose` is a property of an app (Expose), so the service table of each node has it. A gateway opens an Exposure
for each service that some app exposes there: apps that expose the same one are instances of it. Where two services want
the same port, the one that was exposed first has it, and all nodes see that alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from ipaddress import ip_address

from appswitch.core.service_table import ServiceTable, claim
from appswitch.errors import AppSwitchError
from appswitch.model import Address, App, Expose, Exposure, Node

EXPOSE_FORM = "PORT, PORT:GATEWAY_PORT or PORT:GATEWAY:GATEWAY_PORT, for example 80:8080 or 80:10.0.0.1:8080"

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


def concerns(expose: Expose, gateway: Node, is_own: Callable[[Address], bool]) -> bool:
    """Whether this gateway is meant. is_own: whether an address is one of its host's."""
    if expose.gateway in (None, gateway.name, gateway.address):
        return True
    try:
        return expose.gateway is not None and is_own(ip_address(expose.gateway))
    except ValueError:
        return False


def exposures(
    table: ServiceTable, gateway: Node, is_own: Callable[[Address], bool]
) -> Iterator[tuple[Exposure, Exposure | None]]:
    """What `gateway` is to open, each once, the oldest first; and the other one that has its port."""
    seen: set[Exposure] = set()
    by_port: dict[int, Exposure] = {}
    for app in sorted(table.exposing.values(), key=claim):
        for each in app.exposes:
            exposure = Exposure(app.ip, each.port, each.gateway_port)
            if exposure not in seen and concerns(each, gateway, is_own):
                seen.add(exposure)
                owner = by_port.setdefault(each.gateway_port, exposure) if each.gateway_port else exposure
                yield exposure, None if owner == exposure else owner


def exposed_by(app: App, exposure: Exposure) -> Expose | None:
    """How `app` exposes it; None: it doesn't."""
    if app.ip == exposure.ip:
        for each in app.exposes:
            if (each.port, each.gateway_port) == (exposure.port, exposure.gateway_port):
                return each
    return None
