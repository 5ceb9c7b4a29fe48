"""The service table: which apps there are and what they serve.

In memory, changed by one task only. A service is a virtual IP and a port; its instances are the listeners that apps
with this virtual IP have there. Addresses once owned stay known as such, so that a client of a service that has gone is
refused, as by a host whose server has stopped, and not sent elsewhere.

What other nodes have is here, too, as each of them tells it: records by key, "3" for its app 3, "3/9" for that app's
listener 9, "g2" for what it has opened as a gateway, in whatever order they come. The keys of our own entries that have
changed are in `dirty`.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator
from typing import TypeVar

from attrs import evolve

from appswitch.core import names
from appswitch.errors import AppSwitchError
from appswitch.model import (
    DOMAIN,
    GATEWAY_KEY,
    Address,
    App,
    AppRecord,
    AppState,
    Bypass,
    Expose,
    GatewayRecord,
    Listener,
    ListenerRecord,
    Protocol,
    Record,
    Scope,
    Tag,
)

Key = TypeVar("Key")
Inner = TypeVar("Inner")
Value = TypeVar("Value")

Told = dict[str, tuple[int, Record]]
"""Of an app of another node, by key: the id here, and what was said."""

RETIRED = 65536  # addresses remembered of apps that are gone
REMOTE = 1 << 30  # ids of what other nodes have begin here: our own are theirs to keep over a restart


class ServiceTable:
    """Apps and listeners, found by id, by virtual IP and by name."""

    def __init__(self, node: str, last_app: int = 0, last_listener: int = 0, *, alone: bool = False) -> None:
        """last_app, last_listener: the greatest ids that are not to be used again; alone: there is nobody to tell, so
        `dirty` stays empty.
        """
        self.node = node
        self._alone = alone
        self.apps: dict[int, App] = {}
        self.listeners: dict[int, Listener] = {}
        self.draining: set[int] = set()
        """Ids of apps that are to get no new connections."""
        self.unreachable: set[str] = set()
        """Nodes that don't answer."""
        self.dirty: set[str] = set()
        """Keys of our own entries that have changed; for whoever tells the others to empty."""
        self.exposing: dict[int, App] = {}
        """By id, the apps that clients outside are to reach."""
        self.externals: dict[int, App] = {}
        """By id, those that are servers outside."""
        self.gateways: dict[str, dict[str, GatewayRecord]] = {}
        """Node -> key -> what it has opened as a gateway."""
        self._by_node: dict[str, dict[int, App]] = {}
        self._by_app: dict[int, dict[int, Listener]] = {}
        self._by_ip: dict[Address, dict[int, App]] = {}
        self._by_name: dict[str, dict[int, App]] = {}
        self._by_port: dict[tuple[Address, int, Protocol], dict[int, Listener]] = {}
        self._retired: OrderedDict[Address, None] = OrderedDict()
        self._told: dict[str, dict[int, Told]] = {}
        self._last_app = last_app
        self._last_listener = last_listener
        self._last_remote = REMOTE

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
        started: float = 0.0,
        exposes: tuple[Expose, ...] = (),
        external: bool = False,
        bypasses: tuple[Bypass, ...] = (),
    ) -> App:
        """Adds an app of this node. AppSwitchError `name-taken` when its name stands for another IP already."""
        self._last_app += 1
        identity = self._identity(name, ip)
        app = App(
            id=self._last_app,
            ip=identity,
            node=self.node,
            name=name,
            tags=tags,
            pid=pid,
            uid=uid,
            command=command,
            netns=netns,
            exclusive=exclusive,
            tcp=tcp,
            started=started,
            derived=ip is None and name is not None and self._derives(name, identity),
            exposes=exposes,
            external=external,
            bypasses=bypasses,
        )
        return self.revive(app)

    def revive(self, app: App) -> App:
        """Adds an app that has been in the table before; without its name if that stands for another IP by now."""
        if app.name is not None and self.resolve(app.name) not in (None, app.ip):
            app = evolve(app, name=None)
        self._last_app = max(self._last_app, app.id)
        self._add_app(app)
        return app

    def _add_app(self, app: App) -> None:
        self._note(app)
        self.apps[app.id] = app
        if app.exposes:
            self.exposing[app.id] = app
        if app.external:
            self.externals[app.id] = app
        self._by_node.setdefault(app.node, {})[app.number] = app
        self._by_ip.setdefault(app.ip, {})[app.id] = app
        if app.name is not None:
            self._by_name.setdefault(app.name, {})[app.id] = app
        self._retired.pop(app.ip, None)

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

    def _derives(self, name: str, ip: Address) -> bool:
        """Whether its address was derived, or is to be now."""
        known = [app for app in self._by_name.get(name, {}).values() if app.ip == ip]
        return not known or any(app.derived for app in known)

    def _client_only_identity(self) -> Address:
        """One that nobody has; where other nodes have used up all of them, one that no app of ours has."""
        for others in (True, False):
            for step in range(names.LINK_LOCALS):
                ip = names.link_local(self.node, self._last_app + step)
                if not any(others or self.is_local(app) for app in self.apps_at(ip)):
                    return ip
        raise AppSwitchError("no-address", "no link-local address is left", "give the app a name")

    def remove_app(self, app_id: int) -> None:
        """Takes an app out, and what it served."""
        app = self.apps[app_id]
        for listener in list(self.listeners_of(app)):
            self.remove_listener(listener.id)
        self._note(app)
        del self.apps[app_id]
        self.exposing.pop(app_id, None)
        self.externals.pop(app_id, None)
        _discard(self._by_node, app.node, app.number)
        self.draining.discard(app_id)
        if app.name is not None:
            _discard(self._by_name, app.name, app_id)
        if _discard(self._by_ip, app.ip, app_id) and app.reachable:
            self._retired[app.ip] = None
            if len(self._retired) > RETIRED:
                self._retired.popitem(last=False)

    def move(self, app: App, ip: Address) -> App:
        """Gives an app of this node another virtual IP, and what it has bound to the old one along with it."""
        moved, bound, draining = evolve(app, ip=ip), list(self.listeners_of(app)), app.id in self.draining
        self.remove_app(app.id)
        self._add_app(moved)
        self.drain([moved], draining)
        for each in bound:
            self.add_listener(evolve(each, app=moved, ip=ip if each.ip == app.ip else each.ip))
        return moved

    def drain(self, apps: Iterable[App], draining: bool = True) -> None:
        """They are to get no new connections, or are to again. Apps of this node."""
        for app in apps:
            self._note(app)
            (self.draining.add if draining else self.draining.discard)(app.id)

    def is_local(self, app: App) -> bool:
        """Whether it runs on this node."""
        return app.node == self.node

    def own_apps(self) -> Collection[App]:
        """Those of this node."""
        return self._by_node.get(self.node, {}).values()

    def app_of(self, node: str, number: int) -> App | None:
        """The app that has this number on `node`."""
        return self._by_node.get(node, {}).get(number)

    def state_of(self, app: App) -> AppState:
        """How it is, as far as is known here."""
        if app.node in self.unreachable:
            return AppState.SUSPECT
        return AppState.DRAINING if app.id in self.draining else AppState.UP

    def label(self, app: App) -> str:
        """How people call it: by its number; one of another node, by NODE/NUMBER."""
        return str(app.number) if self.is_local(app) else f"{app.node}/{app.number}"

    def apps_called(self, text: str) -> list[App]:
        """Those that a person means by a number of this node, a NODE/NUMBER, a name or an IP; ours first."""
        found = [app for app in self.apps.values() if is_called(app, text, self.node)]
        return sorted(found, key=lambda app: (not self.is_local(app), app.node, app.number))

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
        """The virtual IP that `name` stands for: that of the app which has had it longest."""
        apps = self._by_name.get(name)
        return min(apps.values(), key=claim).ip if apps else None

    def names_of(self, ip: Address) -> list[str]:
        """The names of the apps with this virtual IP, each once."""
        return list(dict.fromkeys(app.name for app in self._by_ip.get(ip, {}).values() if app.name))

    def ports_of(self, ip: Address) -> list[tuple[str, int]]:
        """(protocol, port) of each service at the virtual IP that others can see."""
        services = self.services(self.apps_at(ip))
        return sorted({(each.protocol.value, each.port) for each in services if each.scope is Scope.PUBLIC})

    # --- listeners

    def next_listener_id(self) -> int:
        """Ids are never used again while this trap handler runs."""
        self._last_listener += 1
        return self._last_listener

    def add_listener(self, listener: Listener) -> None:
        """Adds or replaces a listener."""
        if self.is_local(listener.app):
            self._last_listener = max(self._last_listener, listener.id)
        self._note(listener.app, listener)
        self.listeners[listener.id] = listener
        self._by_app.setdefault(listener.app.id, {})[listener.id] = listener
        self._by_port.setdefault((listener.app.ip, listener.port, listener.protocol), {})[listener.id] = listener

    def mark_listening(self, listener_id: int) -> Listener:
        """From now on it takes connections."""
        listener = evolve(self.listeners[listener_id], listening=True)
        self.add_listener(listener)
        return listener

    def remove_listener(self, listener_id: int) -> None:
        """Takes a listener out."""
        listener = self.listeners.pop(listener_id)
        self._note(listener.app, listener)
        _discard(self._by_app, listener.app.id, listener_id)
        _discard(self._by_port, (listener.app.ip, listener.port, listener.protocol), listener_id)

    def at_port(self, ip: Address, port: int, protocol: Protocol = Protocol.TCP) -> Iterable[Listener]:
        """What the apps with the virtual IP `ip` have bound at `port`."""
        return self._by_port.get((ip, port, protocol), {}).values()

    def listeners_of(self, app: App) -> Collection[Listener]:
        """What `app` has bound."""
        return self._by_app.get(app.id, {}).values()

    def own_listeners(self) -> Iterator[Listener]:
        """Those of this node."""
        return (listener for app in self.own_apps() for listener in self.listeners_of(app))

    def services(self, apps: Iterable[App] | None = None) -> Iterator[Listener]:
        """The instances that take connections or datagrams, in the order of virtual IP and port. apps: None: of all.

        An app that has several listeners at a port (one for each IP version, say) is one instance; each backend of an
        external server is one.
        """
        serving: dict[tuple[int, int, Protocol, Scope, tuple[str, int] | None], Listener] = {}
        for app in self.apps.values() if apps is None else apps:
            for each in self.listeners_of(app):
                if each.listening:
                    serving.setdefault((each.app.id, each.port, each.protocol, each.scope, each.outside), each)
        order = sorted(serving.values(), key=lambda each: (each.app.ip.version, int(each.app.ip), each.port, each.id))
        return iter(order)

    # --- gateways

    def put_gateway(self, node: str, key: str, record: GatewayRecord | None) -> None:
        """What this node, or another one, has opened as a gateway; None: it has closed it."""
        if record is not None:
            self.gateways.setdefault(node, {})[key] = record
        elif key in self.gateways.get(node, {}):
            _discard(self.gateways, node, key)
        if node == self.node and not self._alone:
            self.dirty.add(key)

    # --- other nodes

    def record(self, key: str) -> Record | None:
        """What the others are to know of an entry of ours; None: nothing, or that it has gone.

        Of listeners they are told what others could reach: no client alone is heard of before it listens, nor after.
        """
        if key.startswith(GATEWAY_KEY):
            return self.gateways.get(self.node, {}).get(key)
        number, _, listener = key.partition("/")
        app = self.apps.get(int(number))
        if app is None:
            return None
        if not listener:
            return AppRecord(app, app.id in self.draining)
        each = self.listeners.get(int(listener))
        if each is None or not each.listening or not app.reachable:
            return None
        return ListenerRecord(each.number, each.family, each.ip, each.port, each.v6only, each.protocol, each.outside)

    def put_remote(self, node: str, key: str, record: Record | None) -> None:
        """What another node says of an entry; None: it has gone.

        ValueError: the key is none; AppSwitchError: no app is like that.
        """
        if isinstance(record, GatewayRecord) or key.startswith(GATEWAY_KEY):
            self.put_gateway(node, key, record if isinstance(record, GatewayRecord) else None)
            return
        if isinstance(record, AppRecord):
            _check(record.app)
        if isinstance(record, ListenerRecord) and record.outside is not None:
            names.check_host(record.outside[0])
        number = int(key.partition("/")[0])
        told = self._told.setdefault(node, {}).setdefault(number, {})
        self._hide(told, key)
        if record is None:
            told.pop(key, None)
        else:
            told[key] = (told[key][0] if key in told else self._next_remote(), record)
        self._show(node, number, told, key)
        if not told:
            _discard(self._told, node, number)

    def forget_node(self, node: str) -> None:
        """It has left: what it had is gone."""
        for number, told in self._told.pop(node, {}).items():
            self._hide(told, str(number))
        self.gateways.pop(node, None)
        self.unreachable.discard(node)

    def _next_remote(self) -> int:
        self._last_remote += 1
        return self._last_remote

    def _hide(self, told: Told, key: str) -> None:
        """Takes out an app with its listeners, or a listener alone: one app may have thousands."""
        shown, record = told.get(key, (0, None))
        if isinstance(record, AppRecord):
            self.remove_app(shown)
        elif shown in self.listeners:
            self.remove_listener(shown)

    def _show(self, node: str, number: int, told: Told, key: str) -> None:
        """Puts in what is known of it: nothing before the app itself is."""
        app_id, record = told.get(key, (0, None))
        if isinstance(record, AppRecord):
            self._add_app(evolve(record.app, id=app_id, number=record.app.number, node=node))
            if record.draining:
                self.draining.add(app_id)
        app = self.app_of(node, number)
        if app is not None:
            for each in told.values() if isinstance(record, AppRecord) else [told.get(key, (0, None))]:
                self._show_listener(app, *each)

    def _show_listener(self, app: App, listener_id: int, record: Record | None) -> None:
        if isinstance(record, ListenerRecord):
            self.add_listener(
                Listener(
                    id=listener_id,
                    app=app,
                    family=record.family,
                    ip=record.ip,
                    port=record.port,
                    v6only=record.v6only,
                    listening=True,
                    protocol=record.protocol,
                    number=record.number,
                    outside=record.outside,
                )
            )

    def _note(self, app: App, listener: Listener | None = None) -> None:
        if self.is_local(app) and not self._alone:
            self.dirty.add(f"{app.number}/{listener.number}" if listener else str(app.number))


def _check(app: App) -> None:
    """AppSwitchError when no node would have such an app."""
    if app.name is not None:
        names.check_name(app.name)
    if app.reachable:
        names.check_ip(str(app.ip))
    if not math.isfinite(app.started):
        raise AppSwitchError("bad-record", f"no app was started at {app.started}")


def claim(app: App) -> tuple[float, str, int]:
    """How old an app's claim to its name is: the least is the oldest, and all nodes see it so."""
    return app.started, app.node, app.number


def is_called(app: App, text: str, node: str) -> bool:
    """Whether a person on `node` means this app by `text`: a number of that node, NODE/NUMBER, a name or an IP."""
    numbers = {f"{app.node}/{app.number}"} | ({str(app.number)} if app.node == node else set())
    return text in numbers or text == str(app.ip) or app.name == plain_name(text)


def plain_name(text: str) -> str:
    """A name as the table has it, from one as people and DNS write it."""
    return text.lower().removesuffix(".").removesuffix("." + DOMAIN)


def _discard(index: dict[Key, dict[Inner, Value]], key: Key, number: Inner) -> bool:
    """Takes `number` out from under `key`; True when it was the last one there."""
    del index[key][number]
    if index[key]:
        return False
    del index[key]
    return True
