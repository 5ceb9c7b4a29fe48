"""Names that meet: what becomes of them once nodes that didn't know of each other's apps do.

Each node gives addresses to the names of its own apps (core/names.py), avoiding those that it knows to be taken. Two
may do so at once, or while they can't reach each other. Then all that know both decide the same: an app's claim to its
name and address is as old as the app. Of two names that derived one address, the younger has to give way; of one name
with two addresses, the older is what it stands for, and derived ones follow it. An address that somebody asked for
(--ip) is never changed; where such an app's name stands for another address, the app is reached by its IP only.

An app is given another address by its own node alone.
"""

from __future__ import annotations

from appswitch.core import names
from appswitch.core.service_table import ServiceTable, claim
from appswitch.model import Address, App


def settle(table: ServiceTable) -> list[App]:
    """Moves the apps of this node that have to give way; those, as they are now."""
    moved = []
    for app in sorted(table.own_apps(), key=claim):
        if app.derived and app.name is not None:
            ip = _place(table, app.name, app.ip)
            if ip != app.ip:
                moved.append(table.move(app, ip))
    return moved


def _place(table: ServiceTable, name: str, ip: Address) -> Address:
    """Where an app of that name belongs that has a derived `ip`."""
    if _loses(table, name, ip):
        return names.derive_ip(name, _OfOthers(table, name))
    meant = table.resolve(name)
    return ip if meant is None or _loses(table, name, meant) else meant


def _loses(table: ServiceTable, name: str, ip: Address) -> bool:
    """Whether another name has derived this address before."""
    derived = [app for app in table.apps_at(ip) if app.derived]
    return bool(derived) and min(derived, key=claim).name != name


class _OfOthers:
    """The addresses of apps that have another name than this one."""

    def __init__(self, table: ServiceTable, name: str) -> None:
        self._table = table
        self._name = name

    def __contains__(self, ip: object) -> bool:
        return any(app.name != self._name for app in self._table.apps_at(ip))  # type: ignore[arg-type]
