"""Where datagrams go: a UDP socket lives in the network namespace of the app that receives (docs/design.md, "UDP").

Who would receive, only the kernel knows; so the edge asks it about each of `candidates`, and `plan_datagrams` decides.
Of apps on other hosts the table tells what they have bound. Their kernel isn't asked before a flow is announced to them
(edge/flows.py); `plan_flow` judges an announce. As in core/route.py a decision is a value, and errors are the kernel's.
"""

from __future__ import annotations

import errno
from collections.abc import Collection

from attrs import frozen

from appswitch.core.policy import Policy, Verdict
from appswitch.core.route import (
    BROADCAST,
    LOOPBACK,
    Egress,
    Kernel,
    Refuse,
    check_path,
    is_own,
    serves,
    way_out,
    way_past,
)
from appswitch.core.service_table import ServiceTable
from appswitch.model import DNS_PORT, Address, App, Listener, Outside, Party, Protocol, is_alias


@frozen
class Place:
    """A socket in the namespace of the first of `candidates` that can have one, bound to (source, port).

    port: 0: any that is free; heard: someone receives there.
    """

    source: Address
    port: int
    candidates: tuple[App, ...]
    heard: bool = True


@frozen
class Relay:
    """A flow to the first of `candidates`, apps on other hosts, that takes it, from (source, port).

    port: 0: any that is free; heard: they have bound a socket there; is_answer: they have asked.
    """

    source: Address
    port: int
    candidates: tuple[App, ...]
    heard: bool = True
    is_answer: bool = False


@frozen
class Lost:
    """Nobody is there to get it, nor to refuse it: as on a network whose host has gone."""


@frozen
class Deny:
    """Policy doesn't let it go to `server`: ECONNREFUSED."""

    server: Party
    verdict: Verdict


DatagramPlan = Place | Relay | Egress | Kernel | Refuse | Deny | Lost


def plan_udp_bind(table: ServiceTable, app: App, ip: Address, port: int, v6only: bool = False) -> Refuse | None:
    """Whether `app` may bind a UDP socket to (ip, port). Its own sockets there are the kernel's matter."""
    if v6only and ip.version == 4:  # ipv6(7): no v4-mapped address then
        return Refuse(errno.EINVAL, f"an IPV6_V6ONLY socket can't have {ip}")
    if not (ip.is_multicast or ip == BROADCAST or is_own(app, ip)):
        return Refuse(errno.EADDRNOTAVAIL, f"{ip} is not an address of this app")
    for other in table.at_port(app.ip, port, Protocol.UDP):
        if other.app.id != app.id and (app.exclusive or other.app.exclusive):
            return Refuse(errno.EADDRINUSE, f"port {port} is taken by app {table.label(other.app)}")
    return None


def to_look_at(app: App, family: int, ip: Address, v6only: bool) -> list[Address]:
    """Where a socket of the app's would be found that has a port which a socket bound to `ip` is to have."""
    if not ip.is_unspecified:
        return [ip]
    versions = {4} if family == 4 else {6} if v6only else {4, 6}
    return [each for each in (app.ip, app.alias, *LOOPBACK.values()) if each.version in versions]


def new_receiver(table: ServiceTable, app: App, family: int, ip: Address, port: int, v6only: bool) -> Listener | None:
    """What `app` has bound, to be put in the table; None: it is there already, or is for multicast."""
    if ip.is_multicast or ip == BROADCAST:
        return None
    for other in table.at_port(app.ip, port, Protocol.UDP):
        if (other.app.id, other.ip, other.family, other.v6only) == (app.id, ip, family, v6only):
            return None
    return Listener(
        table.next_listener_id(), app, family, ip, port, v6only=v6only, listening=True, protocol=Protocol.UDP
    )


def destination(dest: Address) -> Address:
    """ip(7): the any-address means this host."""
    return LOOPBACK[dest.version] if dest.is_unspecified else dest


def source_of(app: App, dest: Address, bound: Address | None) -> Address:
    """The address that datagrams of `app` to `dest` come from: what was bound, else as the kernel picks it."""
    if bound is not None and not bound.is_unspecified:
        return bound
    if dest.is_loopback:
        return LOOPBACK[dest.version]
    return dest if is_own(app, dest) else app.source(dest.version)


def candidates(table: ServiceTable, app: App, dest: Address) -> list[App]:
    """The apps that may have a receiver for what `app` sends to `dest`: itself first."""
    there = table.apps_at(app.ip if is_own(app, dest) else dest)
    return [app, *(each for each in there if each.id != app.id and each.reachable and not each.external)]


def serving_elsewhere(table: ServiceTable, app: App, dest: Address, port: int) -> set[int]:
    """The ids of those of `candidates` on other hosts that have bound a socket for what `app` sends to (dest, port)."""
    inside = is_own(app, dest)
    there = table.at_port(app.ip if inside else dest, port, Protocol.UDP)
    return {each.app.id for each in there if not table.is_local(each.app) and serves(each, dest, inside)}


def plan_datagrams(
    table: ServiceTable,
    policy: Policy,
    app: App,
    dest: Address,
    port: int,
    *,
    serving: Collection[int],
    asker: App | None,
    turn: int,
    gateway: bool,
    gateways: Collection[str] = (),
    bound: tuple[Address, int] | None = None,
    names: tuple[str, ...] = (),
) -> DatagramPlan:
    """How datagrams of `app` get to (dest, port).

    serving: the ids of those of `candidates` that have a receiver; of its own: one that it would reach by itself; of
    those on other hosts: `serving_elsewhere`;
    asker: the app that has sent datagrams from (dest, port) to `app`: what goes back is its answer, and may go;
    turn: a number that grows by one each time; gateway, gateways, names: as of plan_connect; bound: the socket's own
    name.
    """
    inside = is_own(app, dest)
    source = source_of(app, dest, bound[0] if bound else None)
    if not is_own(app, source):
        error = errno.ENETUNREACH if source.version == 4 else errno.EINVAL
        return Refuse(error, f"{source} is not an address of this app")
    if dest.is_multicast or dest == BROADCAST:
        return Kernel()
    server = Outside(dest, names)
    bypassed = None if asker else way_past(table, policy, app, server, port, Protocol.UDP.value)
    if bypassed is not None:
        return _for_datagrams(bypassed, server)
    if app.id in serving:
        return Kernel()
    refused = check_path(source, dest, inside)
    if refused is not None:
        return refused
    own_port = bound[1] if bound else 0
    if asker is not None:
        if table.is_local(asker):
            return Place(source, own_port, (asker,))
        return Relay(source, own_port, (asker,), is_answer=True)
    if inside or table.owns(dest):
        others = [each for each in candidates(table, app, dest) if each.id != app.id and each.id not in table.draining]
        verdicts = {each.id: policy.decide(app, each, port, Protocol.UDP.value) for each in others}
        allowed = [each for each in others if verdicts[each.id].allowed]
        heard = [each for each in allowed if each.id in serving]
        if heard or (allowed and not inside):
            chosen = heard or allowed
            here = [each for each in chosen if table.is_local(each)]
            if here and (heard or len(here) == len(chosen)):
                return Place(source, own_port, _in_turn(here, turn), heard=bool(heard))
            there = [each for each in chosen if not table.is_local(each)]
            answering = [each for each in there if each.node not in table.unreachable]
            return Relay(source, own_port, _in_turn(answering or there, turn), heard=bool(heard))
        denied = [each for each in others if each not in allowed and (each.id in serving or not inside)]
        if denied:
            return Deny(denied[0], verdicts[denied[0].id])
        return Kernel()
    if port == DNS_PORT:
        return Kernel()  # the DNS socket in the app's namespace answers, whatever the address
    if table.was_owned(dest) or dest.is_link_local or is_alias(dest):
        return Lost()  # an app that has gone, or a client that can only be answered
    plan = way_out(policy, app, server, port, Protocol.UDP.value, gateway=gateway, gateways=gateways)
    return _for_datagrams(plan, server)


def _for_datagrams(plan: Egress | Refuse, server: Outside) -> Egress | Refuse | Deny:
    return Deny(server, plan.verdict) if isinstance(plan, Refuse) and plan.verdict else plan


def _in_turn(apps: list[App], turn: int) -> tuple[App, ...]:
    start = turn % len(apps)
    return tuple(apps[start:] + apps[:start])


def plan_flow(
    table: ServiceTable, policy: Policy, peer: App, app: App, source: Address, dest: Address, port: int, *, asked: bool
) -> Refuse | Deny | None:
    """Whether `peer`, an app on another host, may send datagrams from `source` to (dest, port) of `app`; None: yes.

    asked: `app` has sent datagrams there: these are the answer.
    """
    inside = peer.ip == app.ip and peer.reachable
    for whose, ip in ((peer, source), (app, dest)):
        if ip.is_unspecified or not is_own(whose, ip) or (ip.is_loopback and not inside):
            return Refuse(errno.EADDRNOTAVAIL, f"{ip} is not an address of app {table.label(whose)}")
    refused = check_path(source, dest, inside)
    if refused is not None or asked:
        return refused
    if not app.reachable:
        return Refuse(errno.ECONNREFUSED, f"nobody reaches app {table.label(app)}: it has no virtual IP of its own")
    verdict = policy.decide(peer, app, port, Protocol.UDP.value)
    return None if verdict.allowed else Deny(app, verdict)
