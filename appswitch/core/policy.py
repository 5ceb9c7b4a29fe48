"""Who may reach whom (DESIGN section 2, "Tags"; docs/policy.md).

A policy is an ordered list of rules and a default. The first rule that fits the client, the server and the destination
port decides; where none fits, the default: the `grp` rule (the paper, Figure 1), unless the file says otherwise. An app
always reaches itself; sharing a virtual IP gives no way past.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from fnmatch import fnmatchcase

from attrs import frozen

from appswitch.model import App, Tag

GROUP = "grp"
SELF, DEFAULT = "self", "default"
RESERVED = (SELF, GROUP, DEFAULT)
"""What decides where no rule does; no rule has such a name."""


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
    """Which apps a rule is about. What is empty fits all.

    names, nodes: shell patterns (fnmatch), of which one must match; an app without a name has none that could;
    tags: for each key among them the app must have one of its values.
    """

    names: tuple[str, ...] = ()
    tags: tuple[Tag, ...] = ()
    nodes: tuple[str, ...] = ()

    def fits(self, app: App) -> bool:
        """Whether the rule is about `app`."""
        return (
            (not self.names or (app.name is not None and _matches(app.name, self.names)))
            and (not self.nodes or _matches(app.node, self.nodes))
            and all(any((key, value) in app.tags for value in self._values(key)) for key, _ in self.tags)
        )

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

    def fits(self, client: App, server: App, port: int, proto: str) -> bool:
        """Whether the rule decides."""
        return (
            (not self.ports or any(port in ports for ports in self.ports))
            and (not self.protos or proto in self.protos)
            and self.client.fits(client)
            and self.server.fits(server)
        )


@frozen
class Verdict:
    """rule: the name of what decided; audit: to be reported; cut: a connection that is there already has to end."""

    allowed: bool
    rule: str
    audit: bool = False
    cut: bool = False


@frozen
class Policy:
    """The rules in their order."""

    rules: tuple[Rule, ...] = ()
    default: Default = Default.GRP

    def decide(self, client: App, server: App, port: int, proto: str = "tcp") -> Verdict:
        """Whether `client` may reach `port` of `server`."""
        if client.id == server.id:
            return Verdict(True, SELF)
        for rule in self.rules:
            if rule.fits(client, server, port, proto):
                denied = rule.action is Action.DENY
                return Verdict(not denied, rule.name, audit=rule.action is Action.AUDIT, cut=denied and rule.cut)
        if self.default is Default.GRP:
            return Verdict(_share_group(client, server), GROUP)
        return Verdict(self.default is Default.ALLOW, DEFAULT)


def explain(verdict: Verdict, client: App, server: App) -> str:
    """Why the verdict is what it is, for people."""
    says = "allows" if verdict.allowed else "denies"
    match verdict.rule:
        case "self":
            return "an app reaches itself"
        case "grp":
            return f"the grp rule {says} it: the client has {_groups(client)}, the server {_groups(server)}"
        case "default":
            return f"no rule fits, and the default {says} it"
        case name:
            return f"rule {name} {says} it" + (", and reports it" if verdict.audit else "")


def _share_group(client: App, server: App) -> bool:
    groups = server.values(GROUP)
    return not groups or bool(groups & client.values(GROUP))


def _groups(app: App) -> str:
    return " ".join(f"{GROUP}={value}" for value in sorted(app.values(GROUP))) or f"no {GROUP}"


def _matches(text: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(text, pattern) for pattern in patterns)
