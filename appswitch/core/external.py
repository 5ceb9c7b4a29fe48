"""External servers: servers outside that have a name and a virtual IP of ours, a managed database, say.

To all nodes one is an app whose listeners are its backends (model.Listener.outside): so names, DNS, policy and
balancing are as for apps. What is different is how a connection gets there (edge/external_way.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from attrs import frozen

from appswitch.core import names
from appswitch.core.balance import check_tags
from appswitch.core.service_table import ServiceTable
from appswitch.errors import AppSwitchError
from appswitch.model import Address, App, Listener, Tag

MOST_BACKENDS = 256  # of one server
FORM = "PORT:HOST:PORT, for example 5432:db.example.com:5432 or 5432:[2001:db8::1]:5432"


@frozen
class Backend:
    """Connections to `port` of the virtual IP go to `host`, a name or an address, and its `host_port`."""

    port: int
    host: str
    host_port: int


@frozen
class External:
    """One that is to be registered. ip: None: derived from the name."""

    name: str
    backends: tuple[Backend, ...]
    ip: Address | None = None
    tags: tuple[Tag, ...] = ()


def read(name: str, backends: Sequence[str], ip: str | None = None, tags: Sequence[str] = ()) -> External:
    """As people say it. AppSwitchError says what is wrong."""
    if not backends:
        raise AppSwitchError("bad-backend", f"{name} has no backend", f"give at least one {FORM}")
    if len(backends) > MOST_BACKENDS:
        raise AppSwitchError("bad-backend", f"{name} has {len(backends)} backends", f"{MOST_BACKENDS} at most")
    known_tags = tuple(names.check_tag(tag) for tag in tags)
    check_tags(known_tags)
    read_backends = tuple(dict.fromkeys(_backend(each) for each in backends))
    return External(names.check_name(name), read_backends, names.check_ip(ip) if ip is not None else None, known_tags)


def _backend(text: str) -> Backend:
    if text.endswith("/udp"):
        raise AppSwitchError(
            "bad-backend", f"{text!r}: external servers are reached by TCP only", f"leave /udp out: {FORM}"
        )
    match = re.fullmatch(r"(\d{1,5}):(?:\[([^]]+)\]|([^:]+)):(\d{1,5})(?:/tcp)?", text, re.ASCII)
    if match is None:
        raise AppSwitchError("bad-backend", f"{text!r} is no backend", FORM)
    port, host_port = int(match[1]), int(match[4])
    if not (0 < port < 65536 and 0 < host_port < 65536):
        raise AppSwitchError("bad-backend", f"{text!r} has a port that there can't be", "1 to 65535")
    return Backend(port, names.check_host(match[2] or match[3]), host_port)


def register(table: ServiceTable, external: External, started: float) -> App:
    """Adds it to this node's. AppSwitchError `name-taken`, `taken`. started: seconds since 1970."""
    if own(table, external.name) is not None:
        hint = f"`appswitch external rm {external.name}` first"
        raise AppSwitchError("taken", f"the external server {external.name} is registered on this node already", hint)
    app = table.new_app(
        name=external.name, ip=external.ip, tags=external.tags, netns=False, tcp=True, started=started, external=True
    )
    for each in external.backends:
        number = table.next_listener_id()
        outside = each.host, each.host_port
        table.add_listener(Listener(number, app, app.ip.version, app.ip, each.port, listening=True, outside=outside))
    return app


def own(table: ServiceTable, name: str) -> App | None:
    """The external server of that name that is registered on this node."""
    return next((app for app in table.own_apps() if app.external and app.name == name), None)


def may_stand_for(table: ServiceTable, ip: Address) -> bool:
    """Whether a backend may have the address `ip`. Who has its name could say that it stands for an app."""
    return names.is_elsewhere(ip) and not table.owns(ip) and not table.was_owned(ip)
