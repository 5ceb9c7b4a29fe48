"""`python -m benchmarks.scale`: large clusters, simulated. Prints a table and draws docs/scale/*.svg.

What each node does is the real core: logs and copies (core/sync.py), the bytes of records and deltas (wire/records.py),
the table. Serf is a model (benchmarks/gossip.py). All owners are there; of those who listen, a few stand for the rest,
since all do the same. Time is simulated; it takes a few minutes.
"""

from __future__ import annotations

import argparse
import gc
import heapq
import itertools
import json
import random
import sys
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path

from attrs import define, evolve, field

from appswitch.core.service_table import ServiceTable
from appswitch.core.sync import Applied, Copies, Gap, Log
from appswitch.model import App, AppRecord, Delta, ListenerRecord, Summary
from appswitch.wire import records
from benchmarks import gossip
from benchmarks.plot import plot

DOCS = Path(__file__).parent.parent / "docs" / "scale"
NODES = (10, 30, 100, 300, 1000, 3000, 10000)
SERVICES = 100_000
LISTENERS = 4  # nodes that stand for all
LIFE = 3600.0  # seconds that a service lives: then it ends and another one starts
EVENT_ROOM = 480  # bytes (edge/router.py)
TAGS_EVERY = 1.0  # seconds
FRAME = 100  # bytes of a request on a peer channel: heads, MAC, the summary
PULL_TAKES = 0.002  # seconds, one after the other: asking, and both handlers' work (printed, for this machine)
APART = 60.0  # seconds of a partition
STEADY = 60.0


@define
class Listener:
    """A node that follows all owners, and what that costs. lags: seconds from a change until it is known here."""

    copies: Copies = field(factory=Copies)
    costs: Counter[str] = field(factory=Counter)
    lags: list[float] = field(factory=list)
    apart: bool = False
    asking: set[str] = field(factory=set)


class Cluster:
    """So many nodes with so many services. Things happen at their time (`at`)."""

    def __init__(self, nodes: int, services: int, rng: random.Random) -> None:
        self.nodes, self.rng, self.now = nodes, rng, 0.0
        self.rate = services / LIFE
        self.logs: list[Log] = []
        self.numbers = itertools.count(1)
        self.alive: list[list[int]] = []
        for number in range(nodes):
            self.logs.append(Log(f"node-{number}", 1))
            self.alive.append([self._start(number) for _ in range(services // nodes)])
        self.told = [log.summary for log in self.logs]
        self.changed: list[tuple[float, int]] = [(0.0, log.summary.seq) for log in self.logs]
        self.tagged = [0.0] * nodes
        self.listeners = [Listener() for _ in range(LISTENERS)]
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._events: list[float] = []
        for listener in self.listeners:
            for log in self.logs:
                listener.copies.admit(log.owner)
                listener.copies.apply(log.since(None))

    def _start(self, node: int) -> int:
        number = next(self.numbers)
        ip = IPv4Address(0x0A000000 + number % (1 << 24))
        app = App(number, ip, "", f"service-{number % 5000}", (("grp", f"team-{number % 50}"),), 1000 + number,
                  command=("/usr/bin/server", "--port", "8080"), started=1.7e9 + number, derived=True)  # fmt: skip
        self.logs[node].put(str(number), records.encode(AppRecord(app)))
        self.logs[node].put(f"{number}/{number}", records.encode(ListenerRecord(number, 4, ip, 8080)))
        return number

    # --- time

    def at(self, when: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._due, (when, next(self._order), do))

    def run(self) -> None:
        while self._due:
            self.now, _, do = heapq.heappop(self._due)
            do()

    def live(self, seconds: float) -> None:
        """Services come and go: each time one ends, and a second later another one starts there."""
        when = self.now
        while (when := when + self.rng.expovariate(self.rate)) < self.now + seconds:
            node = self.rng.randrange(self.nodes)
            self.at(when, lambda node=node: self._end(node))  # type: ignore[misc]
            self.at(when + 1.0, lambda node=node: self._begin(node))  # type: ignore[misc]

    def _end(self, node: int) -> None:
        number = self.alive[node].pop(self.rng.randrange(len(self.alive[node])))
        self.logs[node].remove(f"{number}/{number}")
        self.logs[node].remove(str(number))
        self._announce(node)

    def _begin(self, node: int) -> None:
        self.alive[node].append(self._start(node))
        self._announce(node)

    # --- what is told

    def _announce(self, node: int) -> None:
        log = self.logs[node]
        delta, self.told[node] = log.since(self.told[node]), log.summary
        events = records.pieces(delta, EVENT_ROOM) or [records.encode_delta(evolve(delta, after=delta.seq, changes=()))]
        self.changed[node] = self.now, log.summary.seq
        for event in events:
            likely = self._likely()
            size = gossip.copies(self.nodes) * (len(event) + gossip.PACKET)
            for listener in self._hearing(node):
                listener.costs["gossip messages"] += 2 * gossip.copies(self.nodes)
                listener.costs["gossip bytes"] += 2 * size  # what it receives it sends on
                if self.rng.random() < likely:
                    when = self.now + self.rng.uniform(0.3, 1.0) * gossip.spread(self.nodes)
                    self.at(when, lambda a=listener, e=event: self._hear(a, records.decode_delta(e)))  # type: ignore[misc]
        if self.tagged[node] <= self.now:
            self.tagged[node] = self.now + TAGS_EVERY
            self.at(self.tagged[node], lambda: self._tag(node))

    def _likely(self) -> float:
        """Whether one more message arrives."""
        self._events = [when for when in self._events if when > self.now - 1] + [self.now]
        return gossip.arrives(len(self._events))

    def _tag(self, node: int) -> None:
        """What doesn't arrive is told when members are exchanged: twice in a period, begun here and elsewhere."""
        said, likely = self.logs[node].summary, self._likely()
        for listener in self._hearing(node):
            listener.costs["gossip messages"] += 2 * gossip.copies(self.nodes)
            listener.costs["gossip bytes"] += 2 * gossip.copies(self.nodes) * (gossip.MEMBER + gossip.PACKET)
            when = self.now + gossip.spread(self.nodes) + self.rng.uniform(0, 1.0)  # members are polled
            if self.rng.random() >= likely:
                when += self.rng.uniform(0, gossip.push_pull_period(self.nodes) / 2)
            self.at(when, lambda a=listener: self._see(a, node, said))  # type: ignore[misc]

    def _hearing(self, node: int) -> list[Listener]:
        return [each for each in self.listeners if not (each.apart and self.is_far(node))]

    def is_far(self, node: int) -> bool:
        return node % 2 == 1

    # --- what is heard

    def _hear(self, listener: Listener, delta: Delta) -> None:
        listener.costs["events heard"] += 1
        node = int(delta.owner.removeprefix("node-"))
        applied = listener.copies.apply(delta)
        if isinstance(applied, Gap):
            self._pull(listener, node)
        self._know(listener, node, applied)

    def _see(self, listener: Listener, node: int, said: Summary) -> None:
        if not (listener.apart and self.is_far(node)) and listener.copies.heard(self.logs[node].owner, said):
            self._pull(listener, node)

    def _pull(self, listener: Listener, node: int) -> None:
        """Each pull costs its owner as much as the one who asks; all nodes do both equally often."""
        owner = self.logs[node].owner
        delta = self.logs[node].since(listener.copies.summary_of(owner))
        listener.costs["pulls"] += 1
        listener.costs["pull bytes"] += 2 * (2 * FRAME + len(records.encode_delta(delta)))
        self._know(listener, node, listener.copies.apply(delta))

    def _know(self, listener: Listener, node: int, applied: object) -> None:
        known = listener.copies.summary_of(self.logs[node].owner)
        when, seq = self.changed[node]
        if isinstance(applied, Applied) and known is not None and known.seq >= seq:
            listener.lags.append(self.now - when)

    def agree(self, listener: Listener) -> bool:
        return all(listener.copies.summary_of(log.owner) == log.summary for log in self.logs)


# --- what is measured


def steady(nodes: int, services: int, rng: random.Random) -> dict[str, float]:
    """A minute in which each service lives an hour on average."""
    cluster = Cluster(nodes, services, rng)
    cluster.live(STEADY)
    cluster.run()
    assert all(cluster.agree(each) for each in cluster.listeners)
    total: Counter[str] = sum((each.costs for each in cluster.listeners), Counter())
    a_second = {name: count / LISTENERS / STEADY for name, count in total.items()}
    part = gossip.carried(a_second.get("gossip bytes", 0) / 2)
    lags = sorted(lag for each in cluster.listeners for lag in each.lags)
    return {
        "changes a second": 2 * cluster.rate,
        "messages a second": part * a_second.get("gossip messages", 0) + 4 * a_second.get("pulls", 0),
        "gossip bytes a second": part * a_second.get("gossip bytes", 0),
        "pulls a second": a_second.get("pulls", 0),
        "pull bytes a second": a_second.get("pull bytes", 0),
        "rest bytes a second": gossip.at_rest(nodes),
        "lag p50": lags[len(lags) // 2],
        "lag p99": lags[len(lags) * 99 // 100],
    }


def partition(nodes: int, services: int, rng: random.Random) -> dict[str, float]:
    """Half of the nodes are cut off for a minute; then seconds until one half has all that the other one has."""
    cluster = Cluster(nodes, services, rng)
    for listener in cluster.listeners:
        listener.apart = True
    cluster.live(APART)
    cluster.run()
    healed = cluster.now = max(cluster.now, APART)
    first = gossip.RECONNECT / max(nodes / 4, 1)  # each tries one of its failed half, half of the time
    far = [node for node in range(nodes) if cluster.is_far(node)]
    took = []
    for listener in cluster.listeners:
        listener.apart = False
        listener.costs.clear()
        order = rng.sample(far, len(far))
        free = healed
        for place, node in enumerate(order):  # members come back as fast as gossip tells of them
            seen = healed + first + gossip.spread(nodes) + place / gossip.GETS_THROUGH
            if listener.copies.heard(cluster.logs[node].owner, cluster.logs[node].summary):
                cluster.now = free = max(free, seen) + PULL_TAKES
                cluster._pull(listener, node)
            took.append(max(free, seen) - healed)
        assert cluster.agree(listener)
    costs = cluster.listeners[0].costs
    return {"agree after": max(took), "agree pulls": costs["pulls"], "agree bytes": costs["pull bytes"]}


def memory(nodes: int, services: int) -> dict[str, float]:
    """Of a node that knows all: copies and table. As bytes of what Python allocates."""
    numbers = itertools.count(1)
    gc.collect()
    tracemalloc.start()
    copies, table = Copies(), ServiceTable("here")
    for node in range(nodes):
        log = Log(f"node-{node}", 1)
        copies.admit(log.owner)
        for number in itertools.islice(numbers, services // nodes):
            ip = IPv4Address(0x0A000000 + number)
            app = App(number, ip, "", f"service-{number % 5000}", (("grp", f"team-{number % 50}"),), number,
                      command=("/usr/bin/server", "--port", "8080"), started=1.7e9 + number)  # fmt: skip
            log.put(str(number), records.encode(AppRecord(app)))
            log.put(f"{number}/{number}", records.encode(ListenerRecord(number, 4, ip, 8080)))
        applied = copies.apply(records.decode_delta(records.encode_delta(log.since(None))))
        assert isinstance(applied, Applied)
        for key, value in applied.changed.items():
            table.put_remote(log.owner, key, records.decode(log.owner, key, value) if value else None)
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert services - nodes < len(table.listeners) <= services
    return {"memory": float(size)}


def pull_cost() -> float:
    """Seconds that the core takes for one pull of a handful of changes, both ends."""
    log, copies = Log("a", 1), Copies()
    copies.admit("a")
    copies.apply(log.since(None))
    times = 2000
    start = time.perf_counter()
    for number in range(times):
        log.put(str(number % 50), records.encode(AppRecord(App(number, IPv4Address(number), "a", "web"))))
        applied = copies.apply(records.decode_delta(records.encode_delta(log.since(copies.summary_of("a")))))
        assert isinstance(applied, Applied)
    return (time.perf_counter() - start) / times


def measure(nodes: int, services: int, seed: int) -> dict[str, float]:
    """All of it, for one cluster."""
    numbers = {"nodes": float(nodes), "services": float(services)}
    for one in (steady, partition):
        numbers |= one(nodes, services, random.Random(seed))
    return numbers | memory(nodes, services)


def draw(rows: list[dict[str, float]], grown: list[dict[str, float]], into: Path) -> None:
    """A plot of each."""
    into.mkdir(parents=True, exist_ok=True)

    def lines(*names: str) -> dict[str, list[tuple[float, float]]]:
        return {
            name.removesuffix(" a second"): [(row["nodes"], max(row[name], 0.01)) for row in rows] for name in names
        }

    def both(name: str) -> dict[str, list[tuple[float, float]]]:
        series = {"100,000 services": rows, "10 a node": grown}
        return {title: [(row["nodes"], max(row[name], 0.01)) for row in found] for title, found in series.items()}

    mega = [{**row, "memory": row["memory"] / 1e6} for row in rows]
    mega_grown = [{**row, "memory": row["memory"] / 1e6} for row in grown]
    plots = {
        "messages": plot("messages a second a node, sent and received", "nodes", both("messages a second")),
        "bytes": plot("bytes a second a node, sent and received (100,000 services)", "nodes",
                      lines("gossip bytes a second", "pull bytes a second", "rest bytes a second")),
        "lag": plot("seconds until a change is known (100,000 services)", "nodes", lines("lag p50", "lag p99")),
        "partition": plot("seconds to agree after a partition of a minute", "nodes", both("agree after")),
        "memory": plot("memory of a node, MB", "nodes", {
            "100,000 services": [(row["nodes"], row["memory"]) for row in mega],
            "10 a node": [(row["nodes"], row["memory"]) for row in mega_grown]}),
    }  # fmt: skip
    for name, text in plots.items():
        (into / f"{name}.svg").write_text(text)


def table(rows: list[dict[str, float]]) -> str:
    """Of Markdown."""
    heads = {
        "nodes": "nodes", "services": "services",
        "messages a second": "messages/s", "gossip bytes a second": "gossip B/s",
        "pulls a second": "pulls/s", "pull bytes a second": "pull B/s", "rest bytes a second": "at rest B/s",
        "lag p50": "lag p50 s", "lag p99": "lag p99 s", "agree after": "agree s", "agree pulls": "agree pulls",
        "memory": "memory MB",
    }  # fmt: skip
    lines = ["| " + " | ".join(heads.values()) + " |", "|---" * len(heads) + "|"]
    for row in rows:
        cells = [f"{row[key] / 1e6:.0f}" if key == "memory" else _short(row[key]) for key in heads]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 or number == int(number) else f"{number:.2g}"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--services", type=int, default=SERVICES, help="in all (default: 100000)")
    parser.add_argument("--most", type=int, default=NODES[-1], help="nodes (default: 10000)")
    parser.add_argument(
        "--into", type=Path, default=DOCS, metavar="DIR", help="where the plots go (default: docs/scale)"
    )
    arguments = parser.parse_args()
    sizes = [nodes for nodes in NODES if nodes <= arguments.most]
    found: list[list[dict[str, float]]] = [[], []]
    for nodes in sizes:
        for rows, services in zip(found, (arguments.services, 10 * nodes), strict=True):
            start = time.perf_counter()
            rows.append(measure(nodes, services, seed=nodes))
            print(f"{nodes} nodes, {services} services: {time.perf_counter() - start:.0f} s", file=sys.stderr)
    draw(found[0], found[1], arguments.into)
    (arguments.into / "numbers.json").write_text(json.dumps(found, indent=1) + "\n")
    print(*(table(rows) for rows in found), sep="\n\n")
    print(f"\nThe core's part of a pull: {1e6 * pull_cost():.0f} us")


if __name__ == "__main__":
    main()
