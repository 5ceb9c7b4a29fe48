"""Who connects to whom, and how often: events in, aggregates out.

An edge is a client, a server and a port. Rates are averages over the last some ten seconds, exponentially weighted: two
numbers an edge, whatever comes. There are so many edges at most, the one that was quiet longest goes first; clients
outside, who may have any number of addresses, have a share of their own.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence

from attrs import define, field, frozen

from appswitch.model import Address, App, Connection, Event, Kind

MOST = 10_000  # edges
MOST_OUTSIDE = 1_000  # further ones, of clients outside
OVER = 10.0  # seconds; the time constant of rates
GONE_AFTER = 60.0  # seconds that an edge is told of after its app has ended
INSIDE = "dns"  # the medium of what goes to an app's own name server: no edge


@frozen
class End:
    """A client or a server. app: its number on `node`; name, node and app are None where it is no app; ip: None: of a
    server, where that isn't known.
    """

    name: str | None
    ip: Address | None
    node: str | None = None
    app: int | None = None

    @classmethod
    def of(cls, app: App | None, ip: Address | None) -> End:
        """ip: where there is no app."""
        return cls(None, ip) if app is None else cls(app.name, app.ip, app.node, app.number)


@frozen
class Key:
    """What makes an edge one."""

    client: End
    server: End
    port: int
    proto: str


@define
class Rate:
    """Of something that happens now and then; times in seconds. total: how often in all."""

    total: int = 0
    _level: float = 0.0
    _at: float = -math.inf

    def add(self, count: int, now: float) -> None:
        """It has happened `count` times. `now` may be earlier than before: a clock was set."""
        self._level = self.at(now) + count / OVER
        self._at = max(self._at, now)
        self.total += count

    def at(self, now: float) -> float:
        """How often a second."""
        return self._level * math.exp(-max(0.0, now - self._at) / OVER) if self._level else 0.0


@define
class Tally:
    """What is known of an edge. last: seconds since 1970; rule: of the last deny."""

    connects: Rate = field(factory=Rate)
    denied: Rate = field(factory=Rate)
    refused: int = 0
    medium: str | None = None
    rule: str | None = None
    last: float = 0.0


@frozen
class Edge:
    """An edge at a moment. rates: a second; open: connections that there are; medium: None: no connect passed."""

    key: Key
    connects: int = 0
    rate: float = 0.0
    open: int = 0
    denied: int = 0
    denied_rate: float = 0.0
    refused: int = 0
    medium: str | None = None
    rule: str | None = None
    last: float | None = None


class Traffic:
    """The edges that one node sees."""

    def __init__(self, most: int = MOST, most_outside: int = MOST_OUTSIDE) -> None:
        self._inside: OrderedDict[Key, Tally] = OrderedDict()
        self._outside: OrderedDict[Key, Tally] = OrderedDict()
        self._most = {id(self._inside): most, id(self._outside): most_outside}

    def note(self, event: Event) -> None:
        """Something has happened: a connect, a deny, a refusal; anything else is no edge's."""
        if event.kind not in (Kind.CONNECT, Kind.DENY, Kind.REFUSE) or event.port is None or event.medium == INSIDE:
            return
        if event.app is None and event.source is None:
            return  # who it was isn't known
        client = End.of(event.app, event.source[0] if event.source else None)
        tally = self._tally(Key(client, End.of(event.server, event.address), event.port, event.proto or "tcp"))
        tally.last = event.time
        if event.kind is Kind.CONNECT:
            tally.connects.add(1, event.time)
            tally.medium = event.medium or tally.medium
        elif event.kind is Kind.DENY:
            tally.denied.add(1, event.time)
            tally.rule = event.rule
        else:
            tally.refused += 1

    def count(self, client: App, server: App, port: int, connects: int, now: float) -> None:
        """So many connects without asking, since the last time (seconds since 1970)."""
        tally = self._tally(Key(End.of(client, None), End.of(server, None), port, "tcp"))
        tally.connects.add(connects, now)
        tally.medium, tally.last = "unix", now

    def _tally(self, key: Key) -> Tally:
        edges = self._outside if key.client.app is None else self._inside
        tally = edges.get(key)
        if tally is None:
            tally = edges[key] = Tally()
            if len(edges) > self._most[id(edges)]:
                edges.popitem(last=False)
        else:
            edges.move_to_end(key)
        return tally

    def edges(
        self, now: float, connections: Sequence[Connection] = (), lives: Callable[[End], bool] = lambda _: True
    ) -> Iterator[Edge]:
        """The edges, those that were quiet longest first. connections: what there is now; lives: whether an app does.

        Edges of apps that have ended are forgotten after GONE_AFTER.
        """
        opened, media = Counter[Key](), dict[Key, str]()
        for each in connections:
            if (key := _key(each)) is not None:
                opened[key] += 1
                media[key] = each.medium
        for edges in (self._outside, self._inside):
            for key, tally in list(edges.items()):
                if now - tally.last > GONE_AFTER and not (lives(key.client) and lives(key.server)):
                    del edges[key]
                else:
                    yield _edge(key, tally, opened.pop(key, 0), now)
        for key, count in opened.items():  # made before we looked, or so long ago that they are forgotten
            yield Edge(key, open=count, medium=media[key])


def _key(connection: Connection) -> Key | None:
    if connection.dest is None or (connection.client is None and connection.source is None):
        return None  # one end has gone, and nobody knows whose it was
    client = End.of(connection.client, connection.source[0] if connection.source else None)
    return Key(client, End.of(connection.server, connection.dest[0]), connection.dest[1], connection.proto)


def _edge(key: Key, tally: Tally, opened: int, now: float) -> Edge:
    return Edge(
        key,
        connects=tally.connects.total,
        rate=tally.connects.at(now),
        open=opened,
        denied=tally.denied.total,
        denied_rate=tally.denied.at(now),
        refused=tally.refused,
        medium=tally.medium,
        rule=tally.rule,
        last=tally.last,
    )
