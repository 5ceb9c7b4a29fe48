"""The nouns: App, Listener, Connection, Node, Event, and what nodes tell each other: frozen values, for every layer.

Sources: the paper, sections 3 and 4; DESIGN section 2 for the rules.
"""

from __future__ import annotations

from enum import Enum, StrEnum
from ipaddress import IPv4Address, IPv6Address

from attrs import Factory, frozen

Address = IPv4Address | IPv6Address
DOMAIN = "appswitch.local"
"""Every app's name is reached as NAME and as NAME.appswitch.local."""

DNS_PORT = 53

Tag = tuple[str, str]
"""(key, value); a key may repeat."""

# Where an IPv4-only app has to show an IPv6 source address, and the other way round: the app's own address in a range
# that nothing routes. RFC 4193 (a locally assigned prefix) and RFC 3927 (link-local).
V6_ALIAS_PREFIX = int(IPv6Address("fd61:7073:7769::"))  # "aps", "wi"


def is_alias(ip: Address) -> bool:
    """Whether `ip` is such an IPv6 address."""
    return ip.version == 6 and int(ip) >> 32 == V6_ALIAS_PREFIX >> 32


class Scope(Enum):
    """Who can see a listener (DESIGN section 2, "Distributed application")."""

    APP = "app"
    """Bound to loopback: only the apps that share its virtual IP."""
    PUBLIC = "public"
    """Bound to the virtual IP or to any address: whoever policy lets through."""


class Protocol(Enum):
    """What a service speaks."""

    TCP = "tcp"
    UDP = "udp"


@frozen
class Expose:
    """That clients outside are to reach a port of an app through gateways.

    gateway_port: at the gateway, None: one that it chooses; gateway: a node's name, or an address of one, None: all
    gateways; proxy: the program wants to be told of each client by PROXY protocol v2.
    """

    port: int
    gateway_port: int | None = None
    gateway: str | None = None
    proxy: bool = False


@frozen
class Bypass:
    """What an app reaches by its host's network, as it is there.

    place: a network ("10.0.0.0/8"), "localhost", or a pattern of names outside; ports: ranges, both ends included;
    none: all.
    """

    place: str
    ports: tuple[tuple[int, int], ...] = ()

    def __str__(self) -> str:
        """As `--bypass` takes it."""
        place = f"[{self.place}]" if self.ports and ":" in self.place else self.place
        ports = ",".join(f"{low}" if low == high else f"{low}-{high}" for low, high in self.ports)
        return f"{place}:{ports}" if ports else place


@frozen
class App:
    """One `spawn`: a process tree with an identity.

    id: no two apps that this node knows have the same; number: its id on its own node, shown to people beside the node;
    ip: the virtual IP; of an app with neither IP nor name, a link-local address that no one can reach; started: seconds
    since 1970 by its node's clock.
    """

    id: int
    ip: Address
    node: str
    name: str | None = None
    tags: tuple[Tag, ...] = ()
    pid: int = 0
    uid: int = 0
    command: tuple[str, ...] = ()
    netns: bool = True
    exclusive: bool = False
    tcp: bool = False
    """Its connections are TCP, those on one host, too."""
    started: float = 0.0
    number: int = Factory(lambda self: self.id, takes_self=True)
    derived: bool = False
    """Its IP was derived from its name."""
    external: bool = False
    """It is no process tree, but a server outside (core/external.py)."""
    exposes: tuple[Expose, ...] = ()
    bypasses: tuple[Bypass, ...] = ()
    """Known on its own node only."""

    @property
    def reachable(self) -> bool:
        """False for a client-only app."""
        return not self.ip.is_link_local

    @property
    def alias(self) -> Address:
        """The app's identity in the other IP version, as its sockets of that version show it."""
        if isinstance(self.ip, IPv4Address):
            return IPv6Address(V6_ALIAS_PREFIX | int(self.ip))
        return IPv4Address(0xA9FE0000 | 0x0100 + int(self.ip) % 0xFD00)  # 169.254.1.0 to 169.254.253.255

    def source(self, version: int) -> Address:
        """The address that this app's connections over IP `version` (4 or 6) come from."""
        return self.ip if self.ip.version == version else self.alias

    def values(self, key: str) -> frozenset[str]:
        """The values of the tag `key`."""
        return frozenset(value for known, value in self.tags if known == key)


@frozen
class Listener:
    """A socket that an app has bound. listening: it is a service; a UDP socket always is.

    id, number: as those of an app; family: 4 or 6, that of the app's socket; ip: what it asked to bind (IPv4 when it
    bound a v4-mapped address).
    """

    id: int
    app: App
    family: int
    ip: Address
    port: int
    v6only: bool = False
    reuse_addr: bool = False
    reuse_port: bool = False
    listening: bool = False
    protocol: Protocol = Protocol.TCP
    number: int = Factory(lambda self: self.id, takes_self=True)
    outside: tuple[str, int] | None = None
    """Of an external server: the backend's host, a name or an address, and port."""

    @property
    def scope(self) -> Scope:
        """Loopback listeners are seen by the app's siblings only; those of a client alone by nobody else."""
        return Scope.PUBLIC if self.app.reachable and not self.ip.is_loopback else Scope.APP

    @property
    def versions(self) -> frozenset[int]:
        """The IP versions that it takes connections of (ipv6(7), IPV6_V6ONLY)."""
        if self.family == 6 and self.ip.is_unspecified and self.ip.version == 6 and not self.v6only:
            return frozenset({4, 6})
        return frozenset({self.ip.version})


@frozen
class Outside:
    """A host that no app has the address of. names: what our DNS was asked for when it gave this address."""

    ip: Address
    names: tuple[str, ...] = ()


Party = App | Outside
"""Either side of a connection that policy judges."""


GATEWAY = "gateway"
"""The medium of what leaves by a gateway that is another node than the app's."""

BYPASS = "bypass"
"""The medium of what leaves by the app's own host, since the app was started with `--bypass`."""


class State(Enum):
    """How far a connection is."""

    QUEUED = "queued"
    """The server hasn't accepted it yet."""
    ESTABLISHED = "established"
    CLOSING = "closing"
    """One end is closed; the other one may still have data to read."""


@frozen
class Connection:
    """A connection of an app, as the kernel has it.

    source: what the server sees; dest: as the client asked for it; listener: the server's. client, server and listener:
    None when they have gone, or there are none: the outside. None, too, is what a closed end no longer tells.
    inodes: of the client's socket and the server's, 0: closed, not accepted yet, or not on this host; names: of an
    outside server, as they were when it was dialled.
    """

    client: App | None
    source: tuple[Address, int] | None
    dest: tuple[Address, int] | None
    server: App | None
    listener: Listener | None
    node: str
    state: State
    proto: str = "tcp"
    medium: str = "unix"
    inodes: tuple[int, int] = (0, 0)
    names: tuple[str, ...] = ()


class NodeState(StrEnum):
    """How a node is, as this one sees it."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    """It doesn't answer: it may have ended, or be cut off."""
    LEFT = "left"


@frozen
class Node:
    """A host that runs a trap handler. address, port: where its peers reach it; None: it is in no cluster."""

    name: str
    state: NodeState = NodeState.ALIVE
    gateway: bool = False
    address: str | None = None
    port: int | None = None


class AppState(StrEnum):
    """How an app is."""

    UP = "up"
    DRAINING = "draining"
    """It gets no new connections."""
    SUSPECT = "suspect"
    """Its node doesn't answer."""


class HealthState(StrEnum):
    """How a backend is."""

    UP = "up"
    DOWN = "down"
    UNKNOWN = "unknown"
    """It hasn't been tried yet."""


@frozen
class Health:
    """since: when it was tried last; reason: why it is down."""

    state: HealthState = HealthState.UNKNOWN
    since: float | None = None
    reason: str | None = None


@frozen
class AppRecord:
    """An app, as its node tells the others of it. app.id is its number."""

    app: App
    draining: bool = False


@frozen
class ListenerRecord:
    """A socket that takes connections or datagrams, as its node tells the others of it (see Listener)."""

    number: int
    family: int
    ip: Address
    port: int
    v6only: bool = False
    protocol: Protocol = Protocol.TCP
    outside: tuple[str, int] | None = None


@frozen
class Exposure:
    """A service that apps expose, (ip, port), and at which port of a gateway; None: one that it chooses."""

    ip: Address
    port: int
    gateway_port: int | None = None


@frozen
class GatewayRecord:
    """Where a gateway lets clients in to a service, as it tells the others; error: why it doesn't."""

    exposure: Exposure
    places: tuple[tuple[Address, int], ...] = ()
    error: str | None = None


GATEWAY_KEY = "g"
"""The key of a gateway's record is this and a number; those of apps and listeners are numbers (wire/records.py)."""

Record = AppRecord | ListenerRecord | GatewayRecord


@frozen
class Summary:
    """The state of an owner's entries (core/sync.py): which life of it, how many changes, and a digest of them all."""

    incarnation: int
    seq: int
    digest: int


@frozen
class Delta:
    """The changes of an owner's entries after `after`, up to `seq`, one each; digest: of all entries then, or None.

    changes: (key, value), None: removed; whole: not changes, but all entries that there are at `seq`.
    """

    owner: str
    incarnation: int
    after: int
    seq: int
    digest: int | None
    changes: tuple[tuple[str, bytes | None], ...] = ()
    whole: bool = False


class Kind(StrEnum):
    """What can happen."""

    APP = "app"
    APP_END = "app-end"
    LISTEN = "listen"
    CLOSE = "close"
    """A listener has gone."""
    CONNECT = "connect"
    AUDIT = "audit"
    """Policy lets it pass, and reports it."""
    DENY = "deny"
    """Policy doesn't let it pass."""
    REFUSE = "refuse"
    """A connect failed for another reason: nobody listens there, say."""
    BIND_REFUSED = "bind-refused"
    RESOLVE = "resolve"
    NODE = "node"
    """Another host has come, has gone, or doesn't answer."""
    LOST = "lost"
    """Events that this reader was too slow for."""


@frozen
class Event:
    """Something that happened; what doesn't apply is None.

    time: seconds since 1970; app: who did it; server: the app that it reached, or would have; address, port: as asked
    for; medium: what carries the connection; rule: of the policy; error: the errno that the program got;
    query, qtype, answer: of a DNS question; count: how many were lost; source: of a client outside.
    """

    time: float
    kind: Kind
    node: str
    app: App | None = None
    server: App | None = None
    address: Address | None = None
    port: int | None = None
    proto: str | None = None
    medium: str | None = None
    rule: str | None = None
    reason: str | None = None
    error: int | None = None
    query: str | None = None
    qtype: str | None = None
    answer: tuple[str, ...] = ()
    count: int | None = None
    source: tuple[Address, int] | None = None
