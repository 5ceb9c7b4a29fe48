"""The service table: which apps there are and what they serve.

In memory, changed by one task only. A service is a virtual IP and a port; its instances are the listeners that apps
with this virtual IP have there. Addresses once owned stay known as such, so that a client of a service that has gone is
refused, as by a host whose server has stopped, and not sent elsewhere.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator
from typing import TypeVar

from attrs import evolve

from appswitch.core import names
from appswitch.errors import AppSwitchError
from appswitch.model import DOMAIN, Address, App, Listener, Protocol, Scope, Tag

Key = TypeVar("Key")
Value = TypeVar("Value")

RETIRED = 65536  # addresses remembered of apps that are gone


class ServiceTable:
    """Apps and listeners, found by id, by virtual IP and by name."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.apps: dict[int, App] = {}
        self.listeners: dict[int, Listener] = {}
        self.draining: set[int] = set()
        """Ids of apps that are to get no new connections."""
        self._by_ip: dict[Address, dict[int, App]] = {}
        self._by_name: dict[str, dict[int, App]] = {}
        self._by_port: dict[tuple[Address, int, Protocol], dict[int, Listener]] = {}
        self._retired: OrderedDict[Address, None] = OrderedDict()
        self._last_app = 0
        self._last_listener = 0

    # --- apps

    def new_app(
        self,
        *,
        name: str | None,
        ip: Address | None,
        tags: tuple[Tag, ...] = (),
        pid: int = 0,
        uid: int = 0,
        command: tuple[str, ...] = (),
        netns: bool = True,
        exclusive: bool = False,
        tcp: bool = False,
    ) -> App:
        """Adds an app. AppSwitchError `name-taken` when its name stands for another IP already."""
        self._last_app += 1
        app = App(
            id=self._last_app,
            ip=self._identity(name, ip),
            node=self.node,
            name=name,
            tags=tags,
            pid=pid,
            uid=uid,
            command=command,
            netns=netns,
            exclusive=exclusive,
            tcp=tcp,
        )
        return self.revive(app)

    def revive(self, app: App) -> App:
        """Adds an app that has been in the table before; without its name if that stands for another IP by now."""
        if app.name is not None and self.resolve(app.name) not in (None, app.ip):
            app = evolve(app, name=None)
        self.apps[app.id] = app
        self._by_ip.setdefault(app.ip, {})[app.id] = app
        if app.name is not None:
            self._by_name.setdefault(app.name, {})[app.id] = app
        self._retired.pop(app.ip, None)
        return app

    def _identity(self, name: str | None, ip: Address | None) -> Address:
        if name is not None:
            known = self.resolve(name)
            if known is not None and ip is not None and known != ip:
                raise AppSwitchError(
                    "name-taken",
                    f"the name {name} stands for {known} already and can't stand for {ip}, too",
                    f"use --ip {known}, or another name",
                )
            return known or ip or names.derive_ip(name, self._by_ip)
        return ip or self._client_only_identity()

    def _client_only_identity(self) -> Address:
        number = self._last_app
        while names.link_local(number) in self._by_ip:  # the numbers have come round to an app that lives still
            number += 1
        return names.link_local(number)

    def remove_app(self, app_id: int) -> None:
        """Takes an app out, and what it served."""
        app = self.apps.pop(app_id)
        self.draining.discard(app_id)
        for listener in [each for each in self.listeners.values() if each.app.id == app_id]:
            self.remove_listener(listener.id)
        if app.name is not None:
            _discard(self._by_name, app.name, app_id)
        if _discard(self._by_ip, app.ip, app_id) and app.reachable:
            self._retired[app.ip] = None
            if len(self._retired) > RETIRED:
                self._retired.popitem(last=False)

    def apps_called(self, text: str) -> list[App]:
        """Those that a person means by an id, a name or an IP."""
        name = plain_name(text)
        return [app for app in self.apps.values() if text in (str(app.id), str(app.ip)) or app.name == name]

    def owns(self, ip: Address) -> bool:
        """Whether `ip` is the virtual IP of an app that can be reached."""
        return any(app.reachable for app in self._by_ip.get(ip, {}).values())

    def apps_at(self, ip: Address) -> Collection[App]:
        """The apps with this virtual IP."""
        return self._by_ip.get(ip, {}).values()

    def was_owned(self, ip: Address) -> bool:
        """Whether an app that has gone had `ip`, or apps only ever can."""
        return ip in self._retired or ip in names.DERIVED

    # --- names

    def resolve(self, name: str) -> Address | None:
        """The virtual IP that `name` stands for."""
        return next((app.ip for app in self._by_name.get(name, {}).values()), None)

    def names_of(self, ip: Address) -> list[str]:
        """The names of the apps with this virtual IP, each once."""
        return list(dict.fromkeys(app.name for app in self._by_ip.get(ip, {}).values() if app.name))

    def ports_of(self, ip: Address) -> list[tuple[str, int]]:
        """(protocol, port) of each service at the virtual IP that others can see."""
        return sorted(
            {(each.protocol.value, each.port) for each in self.services()
             if each.app.ip == ip and each.scope is Scope.PUBLIC}
        )  # fmt: skip

    # --- listeners

    def next_listener_id(self) -> int:
        """Ids are never used again while this trap handler runs."""
        self._last_listener += 1
        return self._last_listener

    def add_listener(self, listener: Listener) -> None:
        """Adds or replaces a listener."""
        self.listeners[listener.id] = listener
        self._by_port.setdefault((listener.app.ip, listener.port, listener.protocol), {})[listener.id] = listener

    def mark_listening(self, listener_id: int) -> Listener:
        """From now on it takes connections."""
        listener = evolve(self.listeners[listener_id], listening=True)
        self.add_listener(listener)
        return listener

    def remove_listener(self, listener_id: int) -> None:
        """Takes a listener out."""
        listener = self.listeners.pop(listener_id)
        _discard(self._by_port, (listener.app.ip, listener.port, listener.protocol), listener_id)

    def at_port(self, ip: Address, port: int, protocol: Protocol = Protocol.TCP) -> Iterable[Listener]:
        """What the apps with the virtual IP `ip` have bound at `port`."""
        return self._by_port.get((ip, port, protocol), {}).values()

    def services(self) -> Iterator[Listener]:
        """The instances that take connections or datagrams, in the order of virtual IP and port.

        An app that has several listeners at a port (one for each IP version, say) is one instance.
        """
        serving: dict[tuple[int, int, Protocol, Scope], Listener] = {}
        for each in self.listeners.values():
            if each.listening:
                serving.setdefault((each.app.id, each.port, each.protocol, each.scope), each)
        order = sorted(serving.values(), key=lambda each: (each.app.ip.version, int(each.app.ip), each.port, each.id))
        return iter(order)


def plain_name(text: str) -> str:
    """A name as the table has it, from one as people and DNS write it."""
    return text.lower().removesuffix(".").removesuffix("." + DOMAIN)


def _discard(index: dict[Key, dict[int, Value]], key: Key, number: int) -> bool:
    """Takes `number` out from under `key`; True when it was the last one there."""
    del index[key][number]
    if index[key]:
        return False
    del index[key]
    return True
