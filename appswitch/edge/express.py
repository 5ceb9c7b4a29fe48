"""The usual way in for clients outside: to instances on this host, where nothing is to be decided for each connection.

All connections that wait at a port are accepted and handed over in one call (shim/gateway/hand_over.c), each to the
instance whose turn it is. What it comes to is edge/ingress.py's way in half the time; whatever isn't usual is left to
that: instances elsewhere, or that want a PROXY protocol head, rules about clients' addresses, audits, least
connections, and an instance that doesn't take a connection at once.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

import trio
from attrs import define, field, frozen

from appswitch._hand_over import ffi, lib
from appswitch.core.balance import Balancer, by_connections
from appswitch.core.exposing import ANYBODY, Gateway
from appswitch.core.route import Refuse
from appswitch.edge.apps import Apps
from appswitch.edge.deliver import Deliverer
from appswitch.edge.policing import Policing
from appswitch.edge.relayed import wants_head
from appswitch.edge.tcp_names import Name
from appswitch.model import Exposure, Kind, Listener

AT_ONCE = 16  # connections in one call: the other tasks have their turn after a millisecond


@frozen
class Plan:
    """Who takes turns while the epoch lasts. rules: what lets clients in, by the listener's id."""

    instances: list[Listener]
    rules: dict[int, str]


@define
class Express:
    """Of a gateway that has no limits."""

    gateway: Gateway
    apps: Apps
    policing: Policing
    balancer: Balancer
    deliverer: Deliverer
    _plans: dict[tuple[Exposure, int], Plan | None] = field(factory=dict)
    _epoch: int = 0
    """When the plans were made."""
    _turns: dict[tuple[Exposure, int], list[Listener]] = field(factory=dict)
    """Taken of the balancer, and not used yet."""
    _handed: Any = field(factory=lambda: ffi.new("struct as_handed[]", AT_ONCE))

    def hand_over(self, listening: socket.socket, exposure: Exposure) -> list[socket.socket] | None:
        """Has instances take what waits; returns the connections that they haven't. None: it is to be accepted singly.

        OSError as of accept; BlockingIOError: nothing waits.
        """
        key = exposure, 6 if listening.family == socket.AF_INET6 else 4
        plan = self._plan(key)
        if plan is None:
            return None
        turns = self._take_turns(key, plan)
        named = self.deliverer.named
        asked = [(named.handle(each), each.family) for each in turns]
        count = lib.as_hand_over(listening.fileno(), named.salt, asked, len(asked), self._handed)
        if count <= 0:
            self._turns[key] = turns
            error = -count or errno.EAGAIN
            raise OSError(error, os.strerror(error))
        left = []
        for each, listener in zip(self._handed[0:count], turns, strict=False):
            if each.fd >= 0:
                left.append(socket.socket(fileno=each.fd))
            else:
                name = Name(bytes(ffi.buffer(each.name)), None, listener)
                self.deliverer.names.put(each.cookie, name)
                self._publish(name, listener, plan.rules[listener.id])
        self._turns[key] = turns[count:]
        return left

    def _plan(self, key: tuple[Exposure, int]) -> Plan | None:
        if self._epoch != self.apps.epoch.now:
            self._epoch = self.apps.epoch.now
            self._plans.clear()
            self._turns.clear()
        if key not in self._plans:
            self._plans[key] = self._make_plan(*key)
        return self._plans[key]

    def _make_plan(self, exposure: Exposure, version: int) -> Plan | None:
        """None: there is something to be decided for each connection."""
        policy = self.policing.policy
        plan = self.gateway.plan_ingress(self.apps.table, policy, exposure, (ANYBODY[version], 0))
        if isinstance(plan, Refuse) or plan.audited or by_connections(plan.candidates):
            return None
        instances = self.balancer.first_tier(plan.candidates)
        ours = all(self.apps.table.is_local(each.app) and not wants_head(each) for each in instances)
        if not instances or not ours or any(rule.client.cidrs for rule in policy.rules):
            return None
        return Plan(instances, {each.listener.id: each.verdict.rule for each in plan.judged})

    def _take_turns(self, key: tuple[Exposure, int], plan: Plan) -> list[Listener]:
        turns = self._turns.pop(key, [])
        if len(plan.instances) == 1:
            return plan.instances * AT_ONCE
        now = trio.current_time()
        return turns + [self.balancer.order(plan.instances, now)[0] for _ in range(AT_ONCE - len(turns))]

    def _publish(self, name: Name, listener: Listener, rule: str) -> None:
        source, (ip, port) = name.ends
        where: dict[str, Any] = {"address": ip, "port": port, "proto": "tcp", "medium": "tcp", "source": source}
        self.apps.events.publish(Kind.CONNECT, server=listener.app, rule=rule, **where)
