"""A host dies. What does a client notice that connects all the time to a service on that host and a third?"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from attrs import frozen

from benchmarks.hosts.programs import CONNECT_ALWAYS, SERVE
from tests.harness import stop
from tests.hosts import Host, Network, network

SERVICE = ["--ip", "10.77.9.2", "--tag", "prefer=any"]
KILLED, DEAD = "kill -9 of all its processes", "the same, its link down before"
SHOWN = 0.1  # seconds: a slow connect


@frozen
class Failover:
    """After a death. last_failed: seconds until it, None: none failed; slowest: seconds; slow: connects over SHOWN."""

    how: str
    connects: int
    failed: int
    last_failed: float | None
    slowest: float
    slow: int


def take(rounds: int, seconds: float) -> list[Failover]:
    """So many of each kind of death; seconds: that the client goes on after it."""
    with network() as made:
        a, b, c = made.serve("a", "b", "c")
        for host in (b, c):
            host.spawn(*SERVICE, sys.executable, "-c", SERVE)
        results = []
        for turn in range(rounds):
            for how in (KILLED, DEAD):
                print(f"failover: round {turn + 1} of {rounds}, {how}", file=sys.stderr)
                results.append(_die(made, a, (b, c)[turn % 2], how, seconds))
        return results


def _die(made: Network, client: Host, victim: Host, how: str, seconds: float) -> Failover:
    _until_there(made)
    output = client.directory / "connects"
    with output.open("w") as file:
        program = client.spawn(sys.executable, "-c", CONNECT_ALWAYS, stdout=file)
    time.sleep(1.5)
    died = time.monotonic()
    if how == DEAD:
        victim.cut_off()
    victim.kill()
    time.sleep(seconds)
    stopped = time.monotonic()
    stop(program)
    result = _read(output, how, died, stopped)
    victim.join_again()
    victim.serve("--key-file", str(made.key), "--join", client.address)
    victim.spawn(*SERVICE, sys.executable, "-c", SERVE)
    return result


def _until_there(made: Network) -> None:
    """All nodes agree, and the service has both its instances."""
    for host in made.hosts:
        while len(host.tables()) < len(made.hosts) or len(host.rows("services")) != 2:
            time.sleep(0.2)
        host.command("nodes", "--wait")


def _read(output: Path, how: str, died: float, stopped: float) -> Failover:
    lines = [line.split() for line in output.read_text().splitlines() if line.count(" ") == 2]
    rows = [(float(start), float(end), said) for start, end, said in lines if float(end) >= died]
    failed = [end - died for _, end, said in rows if said == "failed"]
    times = [end - start for start, end, _ in rows]
    times.append(stopped - rows[-1][1])  # of the connect that is under way, if it hangs
    return Failover(
        how, len(rows), len(failed), max(failed, default=None), max(times), sum(each > SHOWN for each in times)
    )
