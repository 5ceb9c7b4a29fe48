"""By which names the addresses outside were found: what our DNS has answered, for as long as the answers hold.

Each app that asks has room for so many answers, the oldest of which goes for a new one: none can crowd out what others
have been told. Those of apps that have gone are kept until there are many such apps.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Iterable

from appswitch.model import Address

ROOM = 1024  # pairs of name and address, for an app
GONE = 256  # apps that have gone
LEAST, MOST = 10.0, 86400.0  # seconds that an answer counts: who gets it has to connect first; and clocks err


class Answers:
    """apps: the ids of those that are there."""

    def __init__(self, apps: Container[int] = frozenset()) -> None:
        self._apps = apps
        self._given: dict[int, OrderedDict[tuple[Address, str], None]] = {}
        self._by_ip: dict[Address, dict[tuple[str, int], float]] = {}

    def learn(self, app: int, name: str, addresses: Iterable[Address], ttl: float, now: float) -> None:
        """The app with this id was told that `name` stands for `addresses`. ttl, now: seconds."""
        until = now + min(max(ttl, LEAST), MOST)
        if app not in self._given:
            self._forget_gone()
        given = self._given.setdefault(app, OrderedDict())
        for ip in addresses:
            known = self._by_ip.setdefault(ip, {})
            known[name, app] = max(until, known.get((name, app), until))
            given[ip, name] = None
            given.move_to_end((ip, name))
        while len(given) > ROOM:
            self._drop(app, *given.popitem(last=False)[0])

    def names_of(self, ip: Address, now: float, app: int | None = None) -> tuple[str, ...]:
        """Those that stand for it, each once; first those that this app was told of, for others may be many."""
        if ip not in self._by_ip:
            return ()
        told = [each for each, until in self._by_ip[ip].items() if now < until]
        own = sorted(name for name, asker in told if asker == app)
        return (*own, *sorted({name for name, _ in told} - set(own)))

    def _drop(self, app: int, ip: Address, name: str) -> None:
        del self._by_ip[ip][name, app]
        if not self._by_ip[ip]:
            del self._by_ip[ip]

    def _forget_gone(self) -> None:
        gone = [app for app in self._given if app not in self._apps]
        for app in gone[: max(0, len(gone) - GONE)]:
            for ip, name in self._given.pop(app):
                self._drop(app, ip, name)
