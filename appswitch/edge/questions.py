"""What is asked without changing anything: the rows of `ps`, `services` and so on, for whoever asks.

The control socket (edge/control.py) and the map (web/) ask the same, and so print the same. Lists may be long: the
other tasks have their turn in between.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

import trio
from attrs import define, field

from appswitch.core.exposing import exposed_at
from appswitch.core.service_table import ServiceTable, plain_name
from appswitch.core.why import address_of, why
from appswitch.edge.apps import Apps
from appswitch.edge.backends import backend_of
from appswitch.edge.externals import Externals
from appswitch.edge.healths import of_backend
from appswitch.edge.nodes import Nodes
from appswitch.edge.policing import Policing
from appswitch.edge.why import why_row
from appswitch.errors import AppSwitchError
from appswitch.model import Connection, Listener, Outside, Protocol
from appswitch.wire import control
from appswitch.wire.dns import Found

AT_ONCE = 100  # rows that are made before other tasks have their turn

Row = dict[str, Any]
Item = TypeVar("Item")


async def _no_upstream(_name: str) -> Found | None:
    return None


@define
class Questions:
    """Answers them for one host."""

    apps: Apps
    nodes: Nodes
    snapshot: Callable[[], Awaitable[list[Connection]]]
    """All connections of apps."""
    externals: Externals
    policing: Policing = field(factory=Policing)
    look_up: Callable[[str], Awaitable[Found | None]] = _no_upstream
    """What a name outside stands for."""

    @property
    def table(self) -> ServiceTable:
        return self.apps.table

    async def ps(self) -> list[Row]:
        """The apps."""
        running = (app for app in self.table.apps.values() if not app.external)
        apps = sorted(running, key=lambda app: (app.node, app.number))
        return await rows(apps, lambda app: control.app_row(app, self.table.state_of(app)))

    async def services(self) -> list[Row]:
        """The instances that take connections."""
        return await rows(self.table.services(), self.service_row)

    async def connections(self) -> list[Row]:
        """The connections that there are."""
        return await rows(await self.snapshot(), control.connection_row)

    async def list_externals(self) -> list[Row]:
        """The external servers, a backend each, and what gateways say of them."""
        told = await self.externals.healths.all()
        apps = sorted(self.table.externals.values(), key=lambda app: (app.name or "", app.node))
        backends = [each for app in apps for each in self.table.listeners_of(app)]
        return [control.external_row(each, of_backend(told, backend_of(each))) for each in backends]

    def list_nodes(self) -> list[Row]:
        """The hosts."""
        return [control.node_row(*each) for each in self.nodes.standings()]

    async def why(self, client: str, dest: str) -> Row:
        """What a connect of `client` to `dest`, `NAME:PORT[/udp]`, would come to. AppSwitchError: there is none."""
        service, _, suffix = dest.partition("/")
        host, port = split_service(service)
        protocol = _protocol(suffix or Protocol.TCP.value)
        servers = await self._servers(host)
        gateway, gateways, policy = self.nodes.own.gateway, self.nodes.gateways(), self.policing.policy
        told = why(self.table, policy, client, servers or host, port, protocol, gateway=gateway, gateways=gateways)
        return why_row(host, told)

    async def _servers(self, host: str) -> list[Outside]:
        """What an app that asks for this name, or address, finds; nothing, where there is none."""
        ip = address_of(self.table, host)
        if ip is not None:
            return [Outside(ip, self.policing.names_of(ip))]
        found = await self.look_up(host) if "." in plain_name(host) else None
        addresses = found.addresses if found else ()
        return [Outside(each, (*self.policing.names_of(each), host.removesuffix("."))) for each in addresses]

    def resolve(self, text: str) -> list[Row]:
        """What an app's name stands for. AppSwitchError: no app has it."""
        name = plain_name(text)
        ip = self.table.resolve(name)
        if ip is None:
            raise AppSwitchError("unknown-name", f"no app is named {text!r}", "`appswitch ps` lists the apps")
        instances = list(self.table.services(self.table.apps_at(ip)))
        return [control.resolve_row(name, str(ip), len(instances))]

    def service_row(self, listener: Listener) -> Row:
        """A row of `services`."""
        app = listener.app
        elsewhere = None if self.table.is_local(app) else self.nodes.called(app.node)
        return control.service_row(listener, self.table.state_of(app), elsewhere, exposed_at(self.table, listener))


async def rows(items: Iterable[Item], row: Callable[[Item], Row]) -> list[Row]:
    """A row of each; items: they may change in between."""
    made = []
    for each in list(items):
        made.append(row(each))
        if len(made) % AT_ONCE == 0:
            await trio.lowlevel.checkpoint()
    return made


def split_service(text: str) -> tuple[str, int]:
    """`NAME:PORT` or `IP:PORT`. AppSwitchError `bad-service` when it is neither."""
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
        raise AppSwitchError("bad-service", f"{text!r} is not NAME:PORT", "for example db:5432")
    return host.strip("[]").lower(), int(port)


def _protocol(text: str) -> Protocol:
    try:
        return Protocol(text.lower())
    except ValueError:
        raise AppSwitchError("bad-service", f"{text!r} is no protocol", "tcp or udp, for example db:53/udp") from None
