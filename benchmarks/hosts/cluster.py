"""What a cluster costs at rest, and how soon it knows: one that grows, measured at each size.

Bytes are those that arrive at the hosts' eth0, with their Ethernet headers; processor time and memory those of the trap
handlers and their Serfs.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import mean

from attrs import frozen

from appswitch.host.control_client import ControlClient
from benchmarks import costs
from benchmarks.figure import Numbers
from benchmarks.hosts.programs import ANNOUNCE, CONNECT, LISTEN
from benchmarks.ways import APPSWITCH
from tests.harness import stop
from tests.hosts import Host, Network, network

PLAIN = "plain"
IP = "10.77.9.3"
PATIENCE = 120.0  # seconds until all must agree


@frozen
class Size:
    """What was measured at so many nodes.

    start: seconds from the start of those that are new until all agree; start_cpu: processor seconds of all meanwhile;
    memory: MB a node (PSS); rest: bytes a second a node, of each period; rest_cpu: processor seconds a second a node;
    service: bytes a node for each new service; told: milliseconds from listen until another host has it in its table;
    reached: milliseconds from listen to the first connect from another host, which has tried all the time.
    """

    nodes: int
    start: float
    start_cpu: float
    memory: float
    rest: list[float]
    rest_cpu: float
    service: list[float]
    told: list[float]
    reached: Numbers


def take(sizes: Sequence[int], seconds: float, services: int, rounds: int) -> list[Size]:
    """At each of these sizes. seconds: of rest; services: that are announced, and waited for, a round."""
    with network() as made:
        return [_measure(made, size, seconds, services, rounds) for size in sizes]


def _measure(made: Network, size: int, seconds: float, services: int, rounds: int) -> Size:
    print(f"cluster: {size} nodes", file=sys.stderr)
    start, cpu_before = time.monotonic(), _cpu(made.hosts)
    _grow(made, size)
    started, start_cpu = time.monotonic() - start, _cpu(made.hosts) - cpu_before
    hosts = made.hosts
    time.sleep(min(10.0, seconds))  # what the start has set going comes to its end
    cpu_before, rest = _cpu(hosts), []
    periods = 6
    for _ in range(periods):
        before = _received(hosts)
        time.sleep(seconds / periods)
        rest.append((_received(hosts) - before) / size / (seconds / periods))
    rest_cpu = (_cpu(hosts) - cpu_before) / size / seconds
    memory = costs.memory(_processes(hosts)) / size / 1e6
    service, told = [], []
    reached: Numbers = {APPSWITCH: [], PLAIN: []}
    for turn in range(rounds):
        cost, times = _announce(hosts, services, mean(rest))
        service.append(cost)
        told += times
        for way in (APPSWITCH, PLAIN):
            reached[way] += _reach(hosts, way, services, 1000 * (turn + 3))
    return Size(size, started, start_cpu, memory, rest, rest_cpu, service, told, reached)


def _grow(made: Network, size: int) -> None:
    new = [made.add(f"n{number}") for number in range(len(made.hosts) + 1, size + 1)]
    _introduce(made.hosts)
    for host in new:
        join = [] if host is made.hosts[0] else ["--join", made.hosts[0].address]
        host.serve("--key-file", str(made.key), *join)
    for host in made.hosts:
        with _control(host) as client:
            while True:
                rows = client.call("nodes", {"wait": True, "timeout": PATIENCE})
                if sum(row["state"] == "alive" for row in rows) == size:
                    break
                time.sleep(0.1)


def _introduce(hosts: Sequence[Host]) -> None:
    """All know each other's Ethernet address for good: 40 times 39 are more than the kernel keeps of those that it asks
    for, in all namespaces together (gc_thresh3 in arp(7)), and then hosts don't reach each other.
    """
    links = {host.address: json.loads(host.namespace.run("ip", "-j", "link", "show", "eth0")) for host in hosts}
    macs = {address: link["address"] for address, (link,) in links.items()}
    with tempfile.NamedTemporaryFile("w") as batch:
        for address, mac in macs.items():
            batch.write(f"neigh replace {address} lladdr {mac} dev eth0 nud permanent\n")
        batch.flush()
        for host in hosts:
            host.namespace.run("ip", "-batch", batch.name)


@contextmanager
def _control(host: Host) -> Iterator[ControlClient]:
    client = ControlClient(host.trap)
    try:
        yield client
    finally:
        client.close()


# --- what it costs


def _received(hosts: Sequence[Host]) -> int:
    """Bytes, by all."""
    total = 0
    for host in hosts:
        lines = Path(f"/proc/{host.namespace.pid}/net/dev").read_text().splitlines()
        (counters,) = (line.split(":")[1].split() for line in lines if line.strip().startswith("eth0:"))
        total += int(counters[0])
    return total


def _processes(hosts: Sequence[Host]) -> set[int]:
    """The trap handlers and their Serfs."""
    return costs.family(host.server.pid for host in hosts)


def _cpu(hosts: Sequence[Host]) -> float:
    """Seconds so far."""
    return costs.processor(_processes(hosts))


def _announce(hosts: Sequence[Host], services: int, rest: float) -> tuple[float, list[float]]:
    """New services, one after the other, that nobody asks for. Bytes a node for each, beyond those of rest.

    And the milliseconds until each is in the tables of two others.
    """
    server, watchers = hosts[-1], (hosts[0], hosts[len(hosts) // 2])
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    program = server.spawn("--name", "told", sys.executable, "-c", ANNOUNCE, **pipes)
    assert program.stdin
    assert program.stdout
    times = []
    before, began = _received(hosts), time.monotonic()
    with ThreadPoolExecutor() as pool:
        for port in range(1, services + 1):
            time.sleep(random.uniform(0.2, 0.4))
            knowing = [pool.submit(_wait_for, host, f"told:{port}") for host in watchers]
            program.stdin.write(f"{port}\n")
            program.stdin.flush()
            start = float(program.stdout.readline())
            times += [(each.result() - start) * 1000 for each in knowing]
    time.sleep(2)  # until the last one is told everywhere
    cost = (_received(hosts) - before) / len(hosts) - rest * (time.monotonic() - began)
    stop(program)
    return cost / services, times


def _wait_for(host: Host, service: str) -> float:
    """When it was there."""
    with _control(host) as client:
        client.set_timeout(PATIENCE)
        client.call("wait-for", {"services": [service]})
        return time.monotonic()


# --- how soon it is reached


def _reach(hosts: Sequence[Host], way: str, services: int, port: int) -> list[float]:
    """Milliseconds from listen on one host to the first connect from each of two others."""
    server, *clients = hosts[0], hosts[len(hosts) // 2], hosts[-1]
    ip = IP if way == APPSWITCH else server.address
    listening = _program(server, way, ["--ip", IP], LISTEN, port, services, len(clients))
    connecting = [_program(host, way, [], CONNECT, ip, port, services) for host in clients]
    said = [program.communicate(timeout=PATIENCE)[0].split() for program in [listening, *connecting]]
    starts, *ends = [[float(each) for each in lines] for lines in said]
    return [(end - start) * 1000 for each in ends for start, end in zip(starts, each, strict=True)]


def _program(host: Host, way: str, flags: list[str], code: str, *arguments: object) -> subprocess.Popen[str]:
    spawn = [*host.appswitch, "spawn", *flags] if way == APPSWITCH else []
    command = [*host.prefix, *spawn, sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, env=host.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
