"""The two decisions of the trap handler: may this app bind here, and where does this connect go.

Both return a value that says what to do; the edge does it. What the kernel would answer, we answer: bind(2),
connect(2), ip(7), ipv6(7), tcp(7).
"""

from __future__ import annotations

import errno
import random
from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address

from attrs import evolve, frozen

from appswitch.core.bypass import bypass_of, is_named
from appswitch.core.policy import LET_OUT, Policy, Verdict, explain, is_public
from appswitch.core.service_table import ServiceTable
from appswitch.model import DNS_PORT, Address, App, Bypass, Listener, Outside

EPHEMERAL = range(32768, 61000)
"""Ports for bind to port 0 and for clients (ip(7), ip_local_port_range)."""

LOOPBACK: dict[int, Address] = {4: IPv4Address("127.0.0.1"), 6: IPv6Address("::1")}
BROADCAST = IPv4Address("255.255.255.255")


@frozen
class Judged:
    """An instance of what the client asked for, and whether policy lets it go there."""

    listener: Listener
    verdict: Verdict


@frozen
class Refuse:
    """The call fails. error: an errno; reason: for the operator; judged: the instances that policy denies, if any.

    verdict: policy's, where that is why.
    """

    error: int
    reason: str
    judged: tuple[Judged, ...] = ()
    verdict: Verdict | None = None

    @property
    def denied(self) -> bool:
        """By policy, not for want of a server."""
        return self.verdict is not None

    @property
    def rule(self) -> str | None:
        """The name of the rule that denied it."""
        return self.verdict.rule if self.verdict else None


@frozen
class Reach:
    """Connect to one of `candidates`, here or on other nodes (core/balance.py says which), from the address `source`.

    port: the client's port when it has bound one, else 0: any that is free; judged: the candidates and those that
    policy denies.
    """

    source: Address
    port: int
    candidates: tuple[Listener, ...]
    judged: tuple[Judged, ...] = ()

    @property
    def audited(self) -> bool:
        """Whether connections to some candidate are to be reported."""
        return any(each.verdict.audit for each in self.judged)


@frozen
class Egress:
    """Leave the cluster. gateways: the nodes by one of which (core/exits.py); none: by a socket of this host.

    names: of the server, as far as is known (model.Outside); verdict: of policy; bypass: what of the app's has it leave
    by this host, be that a gateway or not.
    """

    ip: Address
    port: int
    gateways: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    verdict: Verdict = LET_OUT
    bypass: Bypass | None = None

    @property
    def server(self) -> Outside:
        """Who is there."""
        return Outside(self.ip, self.names)


@frozen
class Kernel:
    """Let the plain system call go on inside the app's namespace."""


@frozen
class BindRequest:
    """What an app asks to bind. family: 4 or 6; ip: as asked, v4-mapped addresses as IPv4."""

    family: int
    ip: Address
    port: int
    v6only: bool = False
    reuse_addr: bool = False
    reuse_port: bool = False


ConnectPlan = Reach | Egress | Kernel | Refuse


def plan_bind(table: ServiceTable, app: App, request: BindRequest, rng: random.Random) -> Listener | Refuse:
    """A new listener for `app` (not yet in the table), or why not.

    The port space is the app's (a second bind is EADDRINUSE); a port that another app with this virtual IP has bound
    makes them instances of one service, unless one of them is exclusive. Port 0 gets a port that no sibling uses.
    """
    if request.v6only and request.ip.version == 4:  # ipv6(7): no v4-mapped address then
        return Refuse(errno.EINVAL, f"an IPV6_V6ONLY socket can't have {request.ip}")
    if not is_own(app, request.ip):
        return Refuse(errno.EADDRNOTAVAIL, f"{request.ip} is not an address of this app")
    port = request.port or _free_port(table, app, rng)
    if not port:
        return Refuse(errno.EADDRINUSE, "no ephemeral port is free")
    wanted = Listener(
        id=table.next_listener_id(),
        app=app,
        family=request.family,
        ip=request.ip,
        port=port,
        v6only=request.v6only,
        reuse_addr=request.reuse_addr,
        reuse_port=request.reuse_port,
    )
    for other in table.at_port(app.ip, port):
        if _conflict(wanted, other):
            return Refuse(errno.EADDRINUSE, f"port {port} is taken by app {table.label(other.app)}")
    return wanted


def plan_listen(table: ServiceTable, listener: Listener) -> Refuse | None:
    """Two sockets may share a port by SO_REUSEADDR until one of them listens (socket(7))."""
    for other in table.at_port(listener.app.ip, listener.port):
        rival = other.id != listener.id and other.app.id == listener.app.id and other.listening
        shared = listener.reuse_port and other.reuse_port
        if rival and not shared and _overlap(listener, other):
            return Refuse(errno.EADDRINUSE, f"another socket of the app listens on port {listener.port}")
    return None


def plan_connect(
    table: ServiceTable,
    policy: Policy,
    app: App,
    dest: Address,
    port: int,
    *,
    gateway: bool,
    gateways: Collection[str] = (),
    bound: tuple[Address, int] | None = None,
    names: tuple[str, ...] = (),
) -> ConnectPlan:
    """Where a connect of `app` to (dest, port) goes.

    gateway: this host lets apps out; gateways: the other nodes that do;
    bound: the client's own (address, port) when it has called bind; names: that `dest` has, if it is outside.
    """
    if dest.is_unspecified:  # ip(7): the any-address means this host
        dest = LOOPBACK[dest.version]
    inside = dest.is_loopback or dest == app.source(dest.version)
    if bound and not bound[0].is_unspecified:
        refused = _check_source(app, bound[0], dest, inside)
        if refused is not None:
            return refused
    outside = Outside(dest, names)
    bypassed = way_past(table, policy, app, outside, port)
    if bypassed is not None:
        return bypassed
    if inside or table.owns(dest):
        instances = _instances(table, app, dest, port, inside)
        judged = tuple(Judged(each, policy.decide(app, each.app, port)) for each in instances)
        allowed = [each.listener for each in judged if each.verdict.allowed]
        taking = [each for each in allowed if each.app.id == app.id or each.app.id not in table.draining]
        if taking:
            answering = [each for each in taking if each.app.node not in table.unreachable]
            source, source_port = _source(app, dest, inside, bound)
            return Reach(source, source_port, tuple(answering or taking), judged)
        if allowed:
            return Refuse(errno.ECONNREFUSED, f"what serves {dest} port {port} is being drained")
        if judged:
            server, verdict = judged[0].listener.app, judged[0].verdict
            return Refuse(errno.ECONNREFUSED, explain(verdict, app, server), judged, verdict)
        if not (dest.is_loopback and port == DNS_PORT and app.netns):
            return Refuse(errno.ECONNREFUSED, _nothing_there(table, dest, port))
    if port == DNS_PORT and app.netns:
        return Kernel()  # the DNS socket in the app's namespace answers, whatever the address
    if dest.is_multicast or dest.is_link_local or dest == BROADCAST:
        return Refuse(errno.ENETUNREACH, f"{dest} can't be connected to")
    if table.was_owned(dest):
        return Refuse(errno.ECONNREFUSED, f"the app with {dest} has gone")
    return way_out(policy, app, outside, port, gateway=gateway, gateways=gateways)


def way_past(
    table: ServiceTable, policy: Policy, app: App, server: Outside, port: int, proto: str = "tcp"
) -> Egress | Refuse | None:
    """How `app` gets to what it bypasses AppSwitch for, if policy lets it; None: this is nothing of the kind.

    What apps own stays theirs, and so does what one owned that has gone.
    """
    if (
        not app.bypasses
        or server.ip == app.source(server.ip.version)
        or table.owns(server.ip)
        or table.was_owned(server.ip)
    ):
        return None
    bypass = bypass_of(app, server, port)
    if bypass is None:
        return None
    plan = way_out(policy, app, server, port, proto, gateway=True, gateways=())
    return evolve(plan, bypass=bypass) if isinstance(plan, Egress) else plan


def way_out(
    policy: Policy,
    app: App,
    server: Outside,
    port: int,
    proto: str = "tcp",
    *,
    gateway: bool,
    gateways: Collection[str],
) -> Egress | Refuse:
    """How `app` gets to an address that no app owns, if it may."""
    verdict = policy.decide(app, server, port, proto)
    if not verdict.allowed:
        return Refuse(errno.ECONNREFUSED, explain(verdict, app, server), verdict=verdict)
    if gateway or gateways:
        return Egress(server.ip, port, () if gateway else tuple(gateways), server.names, verdict)
    reason = f"no app has {server.ip}, and no gateway is there"
    if any(is_named(app, name) for name in server.names) and not is_public(server.ip):
        reason += "; --bypass with a name alone opens no address that isn't public"
    return Refuse(errno.ENETUNREACH, reason)


def _check_source(app: App, source: Address, dest: Address, inside: bool) -> Refuse | None:
    """Whether connections may come from what the client says it has bound; what the kernel would say if not."""
    if not is_own(app, source):
        return Refuse(errno.EADDRNOTAVAIL, f"{source} is not an address of this app")
    return check_path(source, dest, inside)


def check_path(source: Address, dest: Address, inside: bool) -> Refuse | None:
    """What the kernel says of a source that doesn't fit. inside: `dest` is the app's own."""
    if source.version != dest.version:
        error = errno.ENETUNREACH if source.version == 6 else errno.EAFNOSUPPORT
        return Refuse(error, f"{dest} can't be reached from {source}")
    if source.is_loopback and not inside:
        return Refuse(errno.EINVAL, f"{dest} can't be reached from {source}")
    return None


def is_own(app: App, ip: Address) -> bool:
    """Whether a socket of `app` may have this address."""
    return ip.is_unspecified or ip.is_loopback or ip in (app.ip, app.alias)


def _free_port(table: ServiceTable, app: App, rng: random.Random) -> int:
    start = rng.randrange(len(EPHEMERAL))
    for step in range(len(EPHEMERAL)):
        port = EPHEMERAL[(start + step) % len(EPHEMERAL)]
        if not table.at_port(app.ip, port):
            return port
    return 0


def _overlap(one: Listener, other: Listener) -> bool:
    """Whether some connection could belong to both."""
    if not one.versions & other.versions:
        return False
    return one.ip.is_unspecified or other.ip.is_unspecified or one.ip == other.ip


def _conflict(wanted: Listener, other: Listener) -> bool:
    if not _overlap(wanted, other):
        return False
    if wanted.app.id != other.app.id:
        return wanted.app.exclusive or other.app.exclusive
    if wanted.reuse_port and other.reuse_port:
        return False
    return not (wanted.reuse_addr and other.reuse_addr and not other.listening)


def _instances(table: ServiceTable, app: App, dest: Address, port: int, inside: bool) -> list[Listener]:
    """The instances that serve (dest, port) for `app`: its own alone if it has one, else its siblings'."""
    bound = [each for each in table.at_port(app.ip if inside else dest, port) if serves(each, dest, inside)]
    # One that is only bound may listen already, the word of it still under way: the kernel will say.
    serving = [each for each in bound if each.listening] or bound
    own = [each for each in serving if each.app.id == app.id]
    return most_specific(own or serving, dest)


def _nothing_there(table: ServiceTable, dest: Address, port: int) -> str:
    """Why a connect to (dest, port) has no instance to go to."""
    private = next((each.ip for each in table.at_port(dest, port) if each.ip.is_loopback and each.listening), None)
    if private is not None:
        return f"port {port} is bound to {private} there: only apps with the IP {dest} reach it, and by {private}"
    return f"nothing listens on {dest} port {port}"


def most_specific(serving: list[Listener], dest: Address) -> list[Listener]:
    """Of each app the sockets that the kernel would pick (compute_score in net/ipv4/inet_hashtables.c)."""
    best: dict[int, int] = {}
    for each in serving:
        best[each.app.id] = max(best.get(each.app.id, 0), _score(each, dest))
    return [each for each in serving if _score(each, dest) == best[each.app.id]]


def _score(listener: Listener, dest: Address) -> int:
    if listener.ip == dest:
        return 4 + (listener.family == 4)
    if listener.ip.is_unspecified:
        return 2 + (listener.family == 4)
    return 1  # loopback's way to what is bound to the virtual IP


def serves(listener: Listener, dest: Address, inside: bool) -> bool:
    """Whether what comes to `dest` is for this listener. inside: it comes from a sibling, or from the app itself."""
    if dest.version not in listener.versions:
        return False
    if listener.ip.is_unspecified or listener.ip == dest:
        return True
    # Loopback reaches what a sibling has bound to the virtual IP, too: "whichever of them serves p".
    return inside and dest.is_loopback and not listener.ip.is_loopback


def _source(app: App, dest: Address, inside: bool, bound: tuple[Address, int] | None) -> tuple[Address, int]:
    """As the kernel picks it: what was bound, else the address of the destination's kind."""
    if bound and not bound[0].is_unspecified:
        return bound
    port = bound[1] if bound else 0
    if dest.is_loopback:  # all of 127/8 is reached from 127.0.0.1
        return LOOPBACK[dest.version], port
    return (dest if inside else app.source(dest.version)), port
