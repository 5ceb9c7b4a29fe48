"""Which app a caller is, and how long an app lives.

The kernel tells who calls. A connection to a Unix listener belongs to the network namespace of the program that made
it, on our end, too: SO_NETNS_COOKIE of the accepted socket names the namespace, whatever the program says (Linux 5.14;
unix_stream_connect in net/unix/af_unix.c). `spawn` connects from the namespace that it has just made, and that is the
app's. An app without a namespace of its own shows a bearer token and must have the user id that it was given to.

An app lives while some process of it holds a connection to us, or some listener of it is open. The sweep looks after
listeners at short intervals, and at once when a connection ends.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import structlog
import trio
from attrs import evolve

from appswitch.core import clashes, names
from appswitch.core.balance import check_tags
from appswitch.core.bypass import parse_bypass
from appswitch.core.service_table import ServiceTable
from appswitch.edge.epoch import Epoch
from appswitch.edge.events import Events
from appswitch.edge.journal import Journal
from appswitch.edge.listeners import ListenerSockets
from appswitch.edge.name_servers import NameServers
from appswitch.edge.namespaces import Namespace
from appswitch.host.cookies import netns_of
from appswitch.model import Address, App, Kind, Listener, Protocol
from appswitch.wire.journal import Known

if TYPE_CHECKING:
    from appswitch.host.cookies import AnySocket

Key = TypeVar("Key")

log = structlog.get_logger()

DORMANT = 4096  # apps remembered by their namespace after their end
SPARE = 64  # and so many more, for looking through all takes a millisecond
STARTING = 1.0  # seconds
BACK_WITHIN = 5.0  # seconds that a keeper may take to find us (host/keeper.py)
SWEEP_EVERY = 0.5  # seconds at least
SWEEP_SHARE = 0.02  # of our time, at most: an app takes 10 us, so from a thousand apps on it is seldomer
AT_ONCE = 64  # apps and listeners that are swept in one go


class Credentials(NamedTuple):
    """What the kernel says of a caller."""

    pid: int
    uid: int
    netns: int


def credentials_of(connection: AnySocket) -> Credentials:
    """SO_PEERCRED and SO_NETNS_COOKIE of an accepted Unix connection."""
    cred = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return Credentials(
        pid=int.from_bytes(cred[:4], "little"),
        uid=int.from_bytes(cred[4:8], "little"),
        netns=netns_of(connection),
    )


def calls_from(caller: Credentials, netns: int) -> bool:
    """Whether a caller is in our network namespace, of the cookie `netns`.

    The cookie alone doesn't tell: an app has sockets that we made, a bound listener say, and could call with one.
    """
    if caller.netns != netns:
        return False
    try:
        return Path(f"/proc/{caller.pid}/ns/net").stat().st_ino == Path("/proc/self/ns/net").stat().st_ino
    except OSError:  # it has gone; or it is root's and we are not, and all our apps are ours
        return caller.uid == 0 != os.geteuid()


def command_of(caller: Credentials) -> tuple[str, ...]:
    """What it runs (proc_pid_cmdline(5)), the first 4 KiB; nothing where that can't be told."""
    try:
        with Path(f"/proc/{caller.pid}/cmdline").open("rb") as file:
            line = file.read(4096)
    except OSError:  # it has gone
        return ()
    return tuple(word.decode(errors="replace") for word in line.rstrip(b"\0").split(b"\0")) if line else ()


def read_identity(
    name: str | None, ip: str | None, tags: Iterable[str], bypasses: Iterable[str], tcp: bool
) -> dict[str, Any]:
    """As a caller says it -> as `Apps.new_app` takes it. AppSwitchError: it can't be."""
    checked = tuple(map(names.check_tag, tags))
    check_tags(checked)
    return {
        "name": names.check_name(name) if name is not None else None,
        "ip": names.check_ip(ip) if ip is not None else None,
        "tags": checked,
        "bypasses": tuple(dict.fromkeys(map(parse_bypass, bypasses))),
        "tcp": tcp,
    }


class Apps:
    """The apps of this host."""

    def __init__(
        self,
        table: ServiceTable,
        sockets: ListenerSockets,
        epoch: Epoch,
        events: Events,
        journal: Journal | None = None,
    ) -> None:
        """journal: None: there is no successor to tell."""
        self.table = table
        self.epoch = epoch
        self.events = events
        self.namespaces: dict[int, Namespace] = {}
        self.name_servers: dict[int, NameServers] = {}
        self._sockets = sockets
        self._held: dict[int, int] = {}
        self._started: dict[Address, float] = {}
        self._by_netns: OrderedDict[int, App] = OrderedDict()
        self._by_token: OrderedDict[bytes, App] = OrderedDict()
        self.journal = journal or Journal()
        self._awaited: dict[int, list[Listener]] = {}
        self._awaited_until = 0.0
        self._is_frozen = False
        self._wake = trio.Event()
        self._left: set[int] = set()
        """Ids of apps that a process has just left."""
        self._changed = trio.Event()

    # --- who calls

    def new_app(self, **identity: Any) -> App:
        """As ServiceTable.new_app."""
        app = self.table.new_app(**identity, started=time.time())
        self._started[app.ip] = trio.current_time()
        self.note_change()
        self.events.publish(Kind.APP, app)
        return app

    def is_starting(self, ip: Address) -> bool:
        """Whether an app with this virtual IP has started just now."""
        return self._started.get(ip, -STARTING) + STARTING > trio.current_time()

    def now(self, app: App) -> App:
        """As the table has it now, if it does: its address may have changed (core/clashes.py)."""
        return self.table.apps.get(app.id, app)

    def settle_names(self) -> None:
        """Gives our apps other addresses where names of theirs have met older ones."""
        moved = clashes.settle(self.table)
        for app in moved:
            log.warning("another name has this app's address: it has a new one", name=app.name, ip=str(app.ip))
            self._remember(self._by_netns, app)
            self._remember(self._by_token, app)
            self.journal.change_app(app)
        if moved:
            self.services_changed()

    @staticmethod
    def _remember(index: OrderedDict[Key, App], app: App) -> None:
        for key in [key for key, known in index.items() if known.id == app.id]:
            index[key] = app

    def bind_netns(self, app: App, netns: int) -> None:
        """`app` is whoever calls from this network namespace."""
        self._by_netns[netns] = app
        self._trim(self._by_netns)
        self.journal.put_app(app, netns=netns)

    def owner_of(self, netns: int) -> App | None:
        """The app whose network namespace this is."""
        return self._by_netns.get(netns)

    def new_token(self, app: App) -> bytes:
        """A bearer token for an app without a namespace of its own."""
        token = secrets.token_bytes(16)
        self._by_token[token] = app
        self._trim(self._by_token)
        self.journal.put_app(app, token=token)
        return token

    def identify(self, caller: Credentials, token: bytes) -> App | None:
        """The app that calls, or None: unidentified."""
        app = self._by_netns.get(caller.netns)
        if app is None:
            app = self._by_token.get(token)
            if app is not None and caller.uid != app.uid and app.uid != 0:
                return None
        if app is not None and app.id not in self.table.apps:
            app = self.table.revive(app)  # its main program has ended, another one of it calls
            if app.netns:
                self._by_netns[caller.netns] = app
                self.journal.put_app(app, netns=caller.netns)
            else:
                self._by_token[token] = app
                self.journal.put_app(app, token=token)
            self.note_change()
            self.events.publish(Kind.APP, app, reason="it is back")
        return app

    def _trim(self, index: OrderedDict[Key, App]) -> None:
        if len(index) <= len(self.table.own_apps()) + DORMANT + SPARE:
            return
        dead = [key for key, app in index.items() if app.id not in self.table.apps]
        for key in dead[: max(0, len(dead) - DORMANT)]:
            del index[key]

    # --- of our predecessor

    def take_back(self, known: Known, receivers: list[Listener]) -> None:
        """It is there; whether it still is, its keeper shows, or a call of it, within BACK_WITHIN.

        receivers: the UDP sockets that it had bound.
        """
        app = self.table.revive(known.app)
        if app.netns:
            self._by_netns[known.netns] = app
        else:
            self._by_token[known.token] = app
        self.table.drain([app] if known.draining else [])
        self._awaited[app.id] = receivers
        self._awaited_until = trio.current_time() + BACK_WITHIN

    def receivers_back(self, app: App) -> None:
        """Its namespace is ours to look into again."""
        for each in [evolve(each, app=app) for each in self._awaited.pop(app.id, [])]:
            if self.namespaces[app.id].receives(each):
                self.table.add_listener(each)
                self.services_changed()
            else:
                self.journal.drop_receiver(each)

    async def until_back(self, app: App) -> None:
        """Until its keeper has found us, where that is still to be expected."""
        while app.netns and app.id not in self.namespaces and self._is_awaited(app):
            with trio.move_on_at(self._awaited_until):
                await self.changed()

    def _is_awaited(self, app: App) -> bool:
        return app.id in self._awaited and trio.current_time() < self._awaited_until

    # --- how long

    @contextmanager
    def hold(self, app: App) -> Iterator[None]:
        """While inside, `app` lives."""
        self._held[app.id] = self._held.get(app.id, 0) + 1
        try:
            yield
        finally:
            self._held[app.id] -= 1
            if not self._held[app.id]:
                del self._held[app.id]
            self._left.add(app.id)
            self._wake.set()
            self.note_change()

    def listener_gone(self, listener: Listener) -> None:
        """Its socket is closed."""
        if listener.id in self.table.listeners:
            if listener.protocol is Protocol.TCP:
                self._sockets.forget(listener.id)
            else:
                self.journal.drop_receiver(listener)
            self.table.remove_listener(listener.id)
            if not listener.listening:  # bound, perhaps to connect from there: no one has learnt of it
                self.note_change()
                return
            self.services_changed()
            self.events.publish(
                Kind.CLOSE, listener.app, address=listener.ip, port=listener.port, proto=listener.protocol.value
            )

    def forget_closed(self, app: App, port: int) -> None:
        """Drops what has been closed at a port, so that it can be bound again at once."""
        for listener in list(self.table.at_port(app.ip, port)):
            if self.table.is_local(listener.app) and not self._sockets.alive(listener.id):
                self.listener_gone(listener)

    def freeze(self) -> None:
        """From now on nobody is given up: our successor will see who is there."""
        self._is_frozen = True

    def sweep(self) -> None:
        """Drops closed listeners and apps that nothing is left of. Other nodes look after theirs."""
        for _ in self._sweep([app.id for app in self.table.own_apps()]):
            pass

    def _sweep(self, app_ids: Iterable[int]) -> Iterator[None]:
        """Looks after a listener or an app at a time."""
        for number in app_ids:
            for listener in self._own_listeners(number):
                self._look_after(listener)
                yield
            self._give_up(number)
            yield

    def _own_listeners(self, app_id: int) -> list[Listener]:
        app = self.table.apps.get(app_id)
        return [] if app is None else list(self.table.listeners_of(app))

    def _look_after(self, listener: Listener) -> None:
        if listener.id in self.table.listeners and not self._is_frozen and not self._is_alive(listener):
            self.listener_gone(listener)

    def _give_up(self, app_id: int) -> None:
        """Unless there is something left of it."""
        app = self.table.apps.get(app_id)
        if app is None or app.external or self._is_frozen:
            return
        if app.id in self._held or self.table.listeners_of(app) or self._is_awaited(app):
            return
        self.table.remove_app(app.id)
        self._awaited.pop(app.id, None)
        self.journal.drop_app(app)
        if not self.table.owns(app.ip):
            self._started.pop(app.ip, None)
        self.services_changed()
        self.events.publish(Kind.APP_END, app)

    def _is_alive(self, listener: Listener) -> bool:
        if listener.outside is not None:
            return True
        if listener.protocol is Protocol.UDP:
            namespace = self.namespaces.get(listener.app.id)
            return namespace is not None and namespace.receives(listener)
        return self._sockets.alive(listener.id)

    def services_changed(self) -> None:
        """An instance came or went: clients with capabilities have to ask again."""
        self.epoch.advance()
        self.note_change()

    def note_change(self) -> None:
        """The table has changed: those who wait look again."""
        self._changed.set()
        self._changed = trio.Event()

    async def changed(self) -> None:
        """Waits for the next change of the table."""
        await self._changed.wait()

    async def until_ended(self, app: App) -> None:
        """Waits until nothing of `app` is left. The caller's own hold doesn't count."""
        while self._held.get(app.id, 0) > 1 or self.table.listeners_of(app):
            await self.changed()

    async def keep_swept(self) -> None:
        """Sweeps for ever: an app at once when a process of it has ended, all of them now and then."""
        pause = SWEEP_EVERY
        while True:
            with trio.move_on_after(pause):
                while True:
                    await self._wake.wait()
                    self._wake = trio.Event()
                    left, self._left = self._left, set()
                    for _ in self._sweep(each for each in left if len(self._own_listeners(each)) <= AT_ONCE):
                        pass  # who has more comes with all
            began = time.thread_time()
            await self._sweep_all()
            pause = max(SWEEP_EVERY, (time.thread_time() - began) / SWEEP_SHARE)

    async def _sweep_all(self) -> None:
        """In pieces: where there are many, it is programs' turn, too."""
        for count, _ in enumerate(self._sweep([app.id for app in self.table.own_apps()]), 1):
            if count % AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
