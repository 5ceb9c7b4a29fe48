"""Metrics: these names and no others, each counted as docs/metrics.md says."""

from __future__ import annotations

import errno
import re
import socket
from pathlib import Path
from typing import get_args

import pytest
from attrs import evolve
from prometheus_client import parser

from appswitch.core.policy import Action, Policy, Rule, Selector
from appswitch.edge.calls import Answer, failure
from appswitch.model import App, Kind
from appswitch.web.metrics import NAMES, CountedCalls, Metrics
from appswitch.wire import trap
from tests.web.world import World, get

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "metrics.md"


@pytest.fixture
def metrics(world: World) -> Metrics:
    metrics = Metrics(world.questions)
    world.events.taps.append(metrics.note)
    return metrics


async def samples(metrics: Metrics) -> dict[str, float]:
    """As Prometheus reads them."""
    response = await metrics.page(get("/metrics"))
    found = {}
    for family in parser.text_string_to_metric_families(response.body.decode()):
        for each in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(each.labels.items()))
            found[f"{each.name}{{{labels}}}"] = each.value
    return found


async def test_names_and_labels_are_those_that_are_documented(world: World, metrics: Metrics) -> None:
    world.publish(Kind.CONNECT)
    world.publish(Kind.RESOLVE, query="db", qtype="A", reason=None)
    metrics.count_trap(trap.Resolve("x"), 0, 0.1)
    found = {re.sub(r"=[^,}]*", "", each) for each in await samples(metrics)}
    documented = set(re.findall(r"^\| `(appswitch_[^`]*)` \|", DOCUMENT.read_text(), flags=re.MULTILINE))
    name = "appswitch_connect_duration_seconds"
    parts = {f"{name}_bucket{{le}}", f"{name}_sum{{}}", f"{name}_count{{}}"}
    assert parts < found
    assert {each.removesuffix("{}") for each in found - parts} | {name} == documented


async def test_connects(world: World, metrics: Metrics) -> None:
    audited = Rule("watch", Action.AUDIT, Selector(), Selector())
    world.questions.policing.policy = Policy((audited,))
    world.publish(Kind.CONNECT, rule="grp")
    world.publish(Kind.CONNECT, rule="watch")
    world.publish(Kind.AUDIT, rule="watch")
    world.publish(Kind.DENY, medium=None)
    world.publish(Kind.REFUSE, medium="gateway")
    world.publish(Kind.LISTEN)
    metrics.count_connects(40)
    found = await samples(metrics)
    assert {key: found[key] for key in found if key.startswith("appswitch_connects_total")} == {
        "appswitch_connects_total{medium=unix,verdict=allow}": 41,
        "appswitch_connects_total{medium=unix,verdict=audit}": 1,
        "appswitch_connects_total{medium=none,verdict=deny}": 1,
        "appswitch_connects_total{medium=gateway,verdict=refuse}": 1,
    }


async def test_a_connect_between_hosts_is_counted_where_its_client_is(world: World, metrics: Metrics) -> None:
    other: App = evolve(world.web, node="n2")
    world.publish(Kind.CONNECT, other, medium="tcp")
    world.publish(Kind.REFUSE, other, medium="tcp")
    assert not any("connects" in each for each in await samples(metrics))
    world.publish(Kind.DENY, other, medium="tcp")
    world.events.publish(Kind.CONNECT, source=(world.web.ip, 1), server=world.db, port=80, medium="tcp")
    elsewhere = evolve(world.db, node="n2")  # its host counts it
    world.events.publish(Kind.CONNECT, source=(world.web.ip, 1), server=elsewhere, port=80, medium="tcp")
    found = await samples(metrics)
    assert found["appswitch_connects_total{medium=tcp,verdict=deny}"] == 1
    assert found["appswitch_connects_total{medium=tcp,verdict=allow}"] == 1


@pytest.mark.parametrize(
    ("reason", "rcode"),
    [(None, "NOERROR"), ("NODATA", "NOERROR"), ("truncated", "NOERROR"), ("NXDOMAIN", "NXDOMAIN"),
     ("SERVFAIL", "SERVFAIL")],
)  # fmt: skip
async def test_names(world: World, metrics: Metrics, reason: str | None, rcode: str) -> None:
    world.publish(Kind.RESOLVE, query="db", qtype="A", reason=reason)
    world.publish(Kind.RESOLVE, query="db", reason="no app has this name")  # no DNS
    found = await samples(metrics)
    assert {each for each in found if "dns" in each} == {f"appswitch_dns_queries_total{{rcode={rcode}}}"}


async def test_calls(world: World, metrics: Metrics) -> None:
    class Calls:
        async def answer(self, app: App, request: trap.Request, channel: socket.socket) -> Answer:
            return failure(errno.ECONNREFUSED if isinstance(request, trap.Connect) else 0)

    connect = trap.Connect(4, world.db.ip, 1, None, False, 0.0, False, False)
    calls = CountedCalls(Calls(), metrics)
    with socket.socket() as channel:
        for request in (connect, connect, trap.OwnIps()):
            await calls.answer(world.web, request, channel)
    found = await samples(metrics)
    assert found["appswitch_traps_total{call=connect,result=ECONNREFUSED}"] == 2
    assert found["appswitch_traps_total{call=own-ips,result=ok}"] == 1
    assert found["appswitch_connect_duration_seconds_count{}"] == 2
    assert found["appswitch_connect_duration_seconds_bucket{le=+Inf}"] == 2


def test_every_call_has_a_name() -> None:
    assert set(NAMES) == set(get_args(trap.Request))


async def test_what_there_is(world: World, metrics: Metrics) -> None:
    found = await samples(metrics)
    assert found["appswitch_instances{}"] == 1
    assert {key: found[key] for key in found if "members" in key} == {
        "appswitch_members{state=alive}": 1,
        "appswitch_members{state=suspect}": 0,
        "appswitch_members{state=left}": 0,
    }
    world.table.remove_listener(world.listener.id)
    assert (await samples(metrics))["appswitch_instances{}"] == 0


async def test_what_waits_to_be_counted_is_counted_first(metrics: Metrics) -> None:
    metrics.before = lambda: metrics.count_connects(3)
    assert (await samples(metrics))["appswitch_connects_total{medium=unix,verdict=allow}"] == 3
