"""Who may reach whom (DESIGN section 2, "Tags"; docs/policy.md).

A policy is an ordered list of rules and a default. The first rule that fits the client, the server and the destination
port decides; where none fits, the default: the `grp` rule (the paper, Figure 1), unless the file says otherwise. An app
always reaches itself; sharing a virtual IP gives no way past.

Either side may be outside: a server that an app connects to, by its address and the names that it was found by; or a
client at a port that a gateway exposes, by its address. Their defaults are others: `serve --egress`, and what an app
exposes may be reached.

Who has a name decides what address it stands for, and may choose that of a machine inside. So a name lets nobody go to
an address that isn't public; a rule that says which addresses, too, does.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv4Network, IPv6Network

from attrs import frozen

from appswitch.model import Address, App, Kind, Outside, Party, Tag

GROUP = "grp"
SELF, DEFAULT, EGRESS, EXPOSED = "self", "default", "egress", "exposed"
RESERVED = (SELF, GROUP, DEFAULT, EGRESS, EXPOSED)
"""What decides where no rule does; no rule has such a name."""


Network = IPv4Network | IPv6Network

NAT64 = IPv6Network("64:ff9b::/96")


class Action(Enum):
    """What a rule does. AUDIT lets pass and reports."""

    ALLOW = "allow"
    DENY = "deny"
    AUDIT = "audit"


class Default(Enum):
    """What decides where no rule fits."""

    GRP = "grp"
    ALLOW = "allow"
    DENY = "deny"


@frozen
class Selector:
    """Which apps and hosts outside a rule is about. What is empty fits all.

    names, nodes: shell patterns (fnmatch), of which one must match; who has no name has none that could;
    tags: for each key among them the app must have one of its values; cidrs: hosts outside only, in one of them.
    """

    names: tuple[str, ...] = ()
    tags: tuple[Tag, ...] = ()
    nodes: tuple[str, ...] = ()
    cidrs: tuple[Network, ...] = ()

    def fits(self, party: Party) -> bool:
        """Whether the rule is about it."""
        if isinstance(party, Outside):
            return self._fits_outside(party)
        return (
            not self.cidrs
            and (not self.names or (party.name is not None and _matches(party.name, self.names)))
            and (not self.nodes or _matches(party.node, self.nodes))
            and all(any((key, value) in party.tags for value in self._values(key)) for key, _ in self.tags)
        )

    def _fits_outside(self, host: Outside) -> bool:
        if self.tags or self.nodes:  # apps have them
            return False
        named = not self.names or any(_matches(name, self.names) for name in host.names)
        return named and (not self.cidrs or any(host.ip in cidr for cidr in self.cidrs))

    def rests_on_name(self, party: Party) -> bool:
        """Whether nothing but the name says that the rule is about this host outside."""
        return isinstance(party, Outside) and bool(self.names) and not self.cidrs

    def _values(self, key: str) -> Iterable[str]:
        return (value for known, value in self.tags if known == key)


@frozen
class Rule:
    """ports, protos ("tcp", "udp"): of the destination; empty: all. cut: end what a reload makes it deny."""

    name: str
    action: Action
    client: Selector = Selector()
    server: Selector = Selector()
    ports: tuple[range, ...] = ()
    protos: tuple[str, ...] = ()
    cut: bool = False

    def fits(self, client: Party, server: Party, port: int, proto: str) -> bool:
        """Whether the rule decides."""
        return (
            (not self.ports or any(port in ports for ports in self.ports))
            and (not self.protos or proto in self.protos)
            and self.client.fits(client)
            and self.server.fits(server)
            and (self.action is Action.DENY or is_public(server.ip) or not self.server.rests_on_name(server))
        )


@frozen
class Verdict:
    """rule: the name of what decided; audit: to be reported; cut: a connection that is there already has to end."""

    allowed: bool
    rule: str
    audit: bool = False
    cut: bool = False

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """As what events a connect is told of that it lets pass."""
        return (Kind.CONNECT, Kind.AUDIT) if self.audit else (Kind.CONNECT,)


LET_OUT = Verdict(True, EGRESS)


@frozen
class Policy:
    """The rules in their order. egress: whether apps may leave where no rule fits."""

    rules: tuple[Rule, ...] = ()
    default: Default = Default.GRP
    egress: bool = True

    @property
    def looks_at_clients(self) -> bool:
        """Whether some rule is about the addresses of clients outside."""
        return any(rule.client.cidrs for rule in self.rules)

    def decide(self, client: Party, server: Party, port: int, proto: str = "tcp") -> Verdict:
        """Whether `client` may reach `port` of `server`."""
        if isinstance(client, App) and isinstance(server, App) and client.id == server.id:
            return Verdict(True, SELF)
        for rule in self.rules:
            if rule.fits(client, server, port, proto):
                denied = rule.action is Action.DENY
                return Verdict(not denied, rule.name, audit=rule.action is Action.AUDIT, cut=denied and rule.cut)
        if isinstance(server, Outside):
            return Verdict(self.egress, EGRESS)
        if isinstance(client, Outside):
            return Verdict(True, EXPOSED)
        if self.default is Default.GRP:
            return Verdict(_share_group(client, server), GROUP)
        return Verdict(self.default is Default.ALLOW, DEFAULT)


def explain(verdict: Verdict, client: Party, server: Party) -> str:
    """Why the verdict is what it is, for people."""
    says = "allows" if verdict.allowed else "denies"
    match verdict.rule:
        case "self":
            return "an app reaches itself"
        case "grp":
            return f"the grp rule {says} it: the client has {_groups(client)}, the server {_groups(server)}"
        case "default":
            return f"no rule fits, and the default {says} it"
        case "egress":
            return f"no rule fits, and the default for what is outside (serve --egress) {says} it"
        case "exposed":
            return f"no rule fits, and that the port is exposed {says} it"
        case name:
            return f"rule {name} {says} it" + (", and reports it" if verdict.audit else "")


def _share_group(client: App, server: App) -> bool:
    groups = server.values(GROUP)
    return not groups or bool(groups & client.values(GROUP))


def _groups(party: Party) -> str:
    values = party.values(GROUP) if isinstance(party, App) else ()
    return " ".join(f"{GROUP}={value}" for value in sorted(values)) or f"no {GROUP}"


def is_public(ip: Address) -> bool:
    """Whether it is an address of the Internet, and leads to none that isn't (NAT64, RFC 6052; 6to4, RFC 3056)."""
    if ip.version == 6:
        inner = IPv4Address(int(ip) & 0xFFFFFFFF) if ip in NAT64 else ip.sixtofour or ip.ipv4_mapped
        return ip.is_global and not ip.is_site_local and (inner is None or inner.is_global)
    return ip.is_global


def _matches(text: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(text, pattern) for pattern in patterns)
