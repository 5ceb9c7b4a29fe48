"""`/metrics` for Prometheus (docs/metrics.md says what each is).

Connects, denies and names are counted as the events of `observe` pass by, calls as they are answered, and connects by
capability as the pages of counters are read (edge/counters.py). The rest is looked at when it is asked for.

A connect between hosts is an event on both. It is counted where its client is, and one of a client outside where its
server is, so that sums over hosts are right.
"""

from __future__ import annotations

import errno
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.metadata import version

import prometheus_client
from attrs import define
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from appswitch.core.policy import Action, Policy
from appswitch.edge.calls import Answer, Answers
from appswitch.edge.http import Request, Response
from appswitch.edge.questions import Questions
from appswitch.model import App, Event, Kind, NodeState
from appswitch.wire import trap

NAMES = {
    trap.Connect: "connect",
    trap.Bind: "bind",
    trap.Listen: "listen",
    trap.Who: "who",
    trap.NameOf: "name",
    trap.Resolve: "resolve",
    trap.Reverse: "reverse",
    trap.OwnIps: "own-ips",
    trap.Register: "register",
    trap.UdpBind: "udp-bind",
    trap.UdpBound: "udp-bound",
    trap.UdpConnect: "udp-connect",
    trap.UdpSend: "udp-send",
}
"""call: of each request of the trap protocol."""

VERDICTS = {Kind.CONNECT: "allow", Kind.DENY: "deny", Kind.REFUSE: "refuse"}
NO_ERROR = (None, "NODATA", "truncated")
"""Reasons of `resolve` events whose rcode is NOERROR."""

BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0)
"""Seconds: from a connect on one host to one that waits for room as long as may be (edge/dial.py)."""

TYPE = prometheus_client.CONTENT_TYPE_LATEST


class Metrics:
    """Those of one host. before: called before anything is told; it may have something to count."""

    def __init__(self, questions: Questions, before: Callable[[], None] = lambda: None) -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # nobody has asked for them
        self.registry = CollectorRegistry()
        self._node = questions.nodes.own.name
        self.before = before
        self._policing = questions.policing
        self._policy: Policy | None = None
        self._audits: set[str] = set()
        self._connects = prometheus_client.Counter(
            "appswitch_connects",
            "Connects of apps of this host, and of clients outside with them.",
            ["verdict", "medium"],
            registry=self.registry,
        )
        self._durations = prometheus_client.Histogram(
            "appswitch_connect_duration_seconds",
            "How long the trap handler took for a connect that it was asked for.",
            registry=self.registry,
            buckets=BUCKETS,
        )
        self._traps = prometheus_client.Counter(
            "appswitch_traps", "Calls that the trap handler has answered.", ["call", "result"], registry=self.registry
        )
        self._queries = prometheus_client.Counter(
            "appswitch_dns_queries", "DNS questions of apps of this host.", ["rcode"], registry=self.registry
        )
        build = prometheus_client.Gauge(
            "appswitch_build_info", "Always 1.", ["version", "node"], registry=self.registry
        )
        build.labels(version("appswitch"), self._node).set(1)
        self.registry.register(_Looked(questions))

    def note(self, event: Event) -> None:
        """Something has happened."""
        if event.kind is Kind.RESOLVE:
            if event.qtype is not None or event.reason == "FORMERR":  # else it was asked by getaddrinfo, without DNS
                self._queries.labels("NOERROR" if event.reason in NO_ERROR else event.reason).inc()
        elif event.kind in VERDICTS and self._is_ours(event):
            verdict = VERDICTS[event.kind]
            if event.kind is Kind.CONNECT and self._is_audited(event.rule):
                verdict = "audit"
            self._connects.labels(verdict, event.medium or "none").inc()

    def _is_ours(self, event: Event) -> bool:
        """Whether no other host counts it, too."""
        who = event.server if event.app is None and event.kind is Kind.CONNECT else event.app
        return event.kind is Kind.DENY or who is None or who.node == self._node

    def _is_audited(self, rule: str | None) -> bool:
        policy = self._policing.policy
        if policy is not self._policy:
            self._policy = policy
            self._audits = {each.name for each in policy.rules if each.action is Action.AUDIT}
        return rule in self._audits

    def count_connects(self, count: int) -> None:
        """So many more connects by capability."""
        self._connects.labels("allow", "unix").inc(count)

    def count_trap(self, request: trap.Request, error: int, took: float) -> None:
        """A call has been answered, with this errno, within so many seconds."""
        result = errno.errorcode.get(error, str(error)) if error else "ok"
        self._traps.labels(NAMES[type(request)], result).inc()
        if isinstance(request, trap.Connect):
            self._durations.observe(took)

    async def page(self, _request: Request) -> Response:
        """Prometheus' text format."""
        self.before()
        return Response(200, prometheus_client.generate_latest(self.registry), TYPE)


@define(eq=False)
class _Looked(Collector):
    """What there is now."""

    questions: Questions

    def collect(self) -> Iterator[GaugeMetricFamily]:
        table = self.questions.table
        instances = sum(1 for _ in table.services(table.own_apps()))
        yield GaugeMetricFamily("appswitch_instances", "Services of this host: apps times ports.", instances)
        states = Counter(standing.node.state for standing in self.questions.nodes.standings())
        members = GaugeMetricFamily("appswitch_members", "Hosts, as this one sees them.", labels=["state"])
        for state in NodeState:
            members.add_metric([state.value], states[state])
        yield members


@define
class CountedCalls:
    """Answers calls as `calls` does, and counts them."""

    calls: Answers
    metrics: Metrics

    async def answer(self, app: App, request: trap.Request, channel: socket.socket) -> Answer:
        """As Calls.answer."""
        began = time.perf_counter()
        answer = await self.calls.answer(app, request, channel)
        self.metrics.count_trap(request, trap.error_of(answer.frame), time.perf_counter() - began)
        return answer
