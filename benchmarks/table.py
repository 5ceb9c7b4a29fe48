"""`python -m benchmarks.table SIZE`: a service table with so many services, as JSON what it costs.

The services are records of ten other nodes, put in as those are that arrive from them. plan, name: microseconds until a
connect is decided, a name is resolved; few: a name, always of the same hundred; memory, grown: bytes (PSS) of this
process, and those that the table has added.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import random
import sys
import time
from collections.abc import Callable
from ipaddress import IPv4Address
from statistics import median
from typing import Any

from appswitch.core.policy import Policy
from appswitch.core.route import Reach, plan_connect
from appswitch.core.service_table import ServiceTable
from appswitch.model import App, AppRecord, ListenerRecord
from benchmarks import costs

SIZES = (100, 1_000, 10_000, 100_000)
NODES, LOOKUPS = 10, 5_000
FIRST = int(IPv4Address("10.0.0.1"))
PLAN, NAME, FEW = "plan", "name", "few"


def fill(table: ServiceTable, size: int) -> None:
    """Each is an app with an address, a name and a tag of its own, and a listener."""
    for number in range(size):
        node, ip = f"node-{number % NODES}", IPv4Address(FIRST + number)
        app = App(number, ip, node, f"service-{number}", (("grp", "all"),), 1000, command=("/usr/bin/server",))
        table.put_remote(node, str(number), AppRecord(app))
        table.put_remote(node, f"{number}/1", ListenerRecord(number, 4, ip, 8080))


def timed(do: Callable[[int], Any], numbers: list[int]) -> float:
    """Microseconds of a call: the mean of each hundred, the median of these."""
    means = []
    for begin in range(0, len(numbers), 100):
        part = numbers[begin : begin + 100]
        start = time.process_time()
        for number in part:
            do(number)
        means.append((time.process_time() - start) / len(part) * 1e6)
    return median(means)


def main(size: int) -> None:
    importlib.import_module("appswitch.server")  # what the trap handler has loaded is in its memory
    gc.collect()
    before = costs.memory([os.getpid()])
    table, policy = ServiceTable("here"), Policy()
    fill(table, size)
    gc.collect()
    after = costs.memory([os.getpid()])
    client = table.new_app(name="client", ip=None, tags=(("grp", "all"),))
    chosen = random.Random(1).choices(range(size), k=LOOKUPS)
    few = [number % SIZES[0] for number in chosen]
    ips = {number: IPv4Address(FIRST + number) for number in chosen}
    names = [f"service-{number}" for number in range(size)]

    def plan(number: int) -> None:
        assert isinstance(plan_connect(table, policy, client, ips[number], 8080, gateway=False), Reach)

    def resolve(number: int) -> None:
        assert table.resolve(names[number]) is not None

    found = {PLAN: timed(plan, chosen), NAME: timed(resolve, chosen), FEW: timed(resolve, few)}
    print(json.dumps({**found, "memory": after, "grown": after - before}))


if __name__ == "__main__":
    main(int(sys.argv[1]))
