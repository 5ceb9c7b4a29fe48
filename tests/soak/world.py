"""What a soak does, and what has to hold all along.

Two hosts have the same services. Clients on both connect without a pause; meanwhile instances are drained and moved,
trap handlers are stopped, killed and taken over from, the policy changes. Whatever happens:

- a connect that policy allows is never lost, and what it brings back is whole;
- it is delivered to the app that was asked for, which sees the client's own address;
- one that policy denies is refused, from the moment on at which that is in force;
- connections that are kept go on;
- in the end nothing is left over, and all hosts have the same table.
"""

from __future__ import annotations

import errno
import json
import math
import random
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.test_leaks import held_by, holds_no_more, memory_of
from tests.harness import PATIENCE, Talker, eventually, reload, stop
from tests.hosts import Host, Network, only
from tests.soak.programs import CLIENT, SERVER

PYTHON = sys.executable
SERVICES = ["s0", "s1", "s2"]
KEPT = ["keep-a", "keep-b"]
RULE = '[[rule]]\nname = "flip"\naction = "deny"\nfrom = {name = "flip-*"}\n'
TABLES_AGREE = 60.0  # seconds
LONG = 1.8  # seconds without a trap handler; clients with a time-out, as these are, may give up after 2
GIVING_UP = {errno.ENETDOWN, errno.ETIMEDOUT, socket.EAI_AGAIN, errno.ECONNABORTED}
MOST_MEMORY = 150  # MiB of a trap handler, in the end


class ViolationError(AssertionError):
    """What should never happen has happened."""


class Instance:
    """One of a service's, on a host."""

    def __init__(self, host: Host, name: str, number: int) -> None:
        self.host, self.name, self.number = host, name, number
        before = self._apps()
        flags = ["--name", name, "--tag", "grp=1"]
        self.process = host.spawn(*flags, PYTHON, "-c", SERVER, name, str(number))
        eventually(lambda: self._apps() > before)
        (self.app,) = self._apps() - before

    def _apps(self) -> set[int]:
        """Those of this service on this host."""
        rows = self.host.rows("services")
        return {row["app"] for row in rows if (row["name"], row["node"]) == (self.name, self.host.name)}

    def drain_and_stop(self) -> None:
        self.host.command("drain", str(self.app), "--timeout", str(PATIENCE))
        stop(self.process)


class Soak:
    """seed: of all that is random. Times are in seconds of the monotonic clock."""

    def __init__(self, net: Network, seed: int) -> None:
        self._net = net
        self._random = random.Random(seed)
        self._stop = threading.Event()
        self._policies: dict[str, Path] = {}
        self._denied: bool | None = False
        """Of who is named flip-*; None: just now it is one or the other."""
        self._phase = 0
        self._without: dict[str, threading.Lock] = {}
        """Held while a host has no trap handler, or has two: who starts a program then may fail."""
        self._outage_began, self._long_until = math.inf, -math.inf
        self._doing = "nothing"
        self._instances: list[Instance] = []
        self.seen: Counter[str] = Counter()
        self.violations: list[str] = []
        self._lock = threading.Lock()

    def run(self, seconds: float) -> None:
        """ViolationError: with all that was seen to go wrong."""
        hosts = [self._net.add(name) for name in "ab"]
        for host in hosts:
            self._policies[host.name] = host.directory / "policy.toml"
            self._policies[host.name].write_text("")
            self._without[host.name] = threading.Lock()
            self._serve(host)
        for host in hosts:
            host.command("nodes", "--wait", "--timeout", str(TABLES_AGREE))
        at_rest = {host.name: held_by(host.server.pid) for host in hosts}
        self._instances = [Instance(host, name, number) for number, name in enumerate(SERVICES) for host in hosts]
        for host, name in zip(hosts, KEPT, strict=True):
            Instance(host, name, 0)
        threads = [threading.Thread(target=self._guarded, args=[each]) for each in self._clients(hosts)]
        threads.append(threading.Thread(target=self._guarded, args=[self._disturb]))
        for thread in threads:
            thread.start()
        self._stop.wait(seconds)
        self._stop.set()
        for thread in threads:
            thread.join()
        if not self.violations:
            self._guarded(lambda: self._look_at_what_is_left(hosts, at_rest))
        if self.violations:
            raise ViolationError("\n".join(self.violations))

    def _serve(self, host: Host, *flags: str) -> None:
        other = next((each for each in self._net.hosts if each is not host), None)
        join = ["--join", other.address] if other else []
        host.serve("--key-file", str(self._net.key), "--policy", str(self._policies[host.name]), *join, *flags)

    def _guarded(self, work: Callable[[], None]) -> None:
        """A violation, or a fault of the soak's own, ends all."""
        try:
            work()
        except Exception as error:
            with self._lock:
                self.violations.append(f"{type(error).__name__}: {error}")
            self._stop.set()

    # --- who connects

    def _clients(self, hosts: list[Host]) -> list[Callable[[], None]]:
        found: list[Callable[[], None]] = []
        for host in hosts:
            for number in range(2):
                name = f"client-{host.name}{number}"
                found.append(self._client(host, name, 1, lambda: False))
            found.append(self._client(host, f"stranger-{host.name}", 2, lambda: True))
            found.append(self._client(host, f"flip-{host.name}", 1, lambda: self._denied))
            found.append(lambda host=host: self._pass_by(host))  # type: ignore[misc]
        return found

    def _client(self, host: Host, name: str, group: int, is_denied: Callable[[], bool | None]) -> Callable[[], None]:
        """A program that goes on connecting."""
        choice = random.Random(self._random.random())
        talker = Talker(host, "--name", name, "--tag", f"grp={group}", PYTHON, "-c", CLIENT)
        eventually(lambda: only(host.rows("ps"), name=name))
        (address,) = {row["ip"] for row in only(host.rows("ps"), name=name)}

        def connect() -> None:
            kept = choice.random() < 0.1 and name.startswith("client")
            dest = choice.choice(KEPT if kept else SERVICES)
            size = choice.choice([1, 100, 10_000, 300_000])
            phase, denied, began = self._phase, is_denied(), time.monotonic()
            answer = json.loads(talker.ask(f"{'keep' if kept else 'connect'} {dest} {size}") or '{"error": "it ended"}')
            answered = time.monotonic()
            in_outage = answered - self._outage_began > LONG or began < self._long_until
            if in_outage and answer.get("error") in GIVING_UP:
                self.seen["gave up"] += 1
            elif phase == self._phase and denied is not None:
                self._judge(
                    f"{name} -> {dest}, {answered - began:.1f} s, while {self._doing}", answer, denied, dest, address
                )

        def go_on() -> None:
            while not self._stop.is_set():
                connect()

        return go_on

    def _pass_by(self, host: Host) -> None:
        """Programs that connect once, and end."""
        while not self._stop.is_set():
            with self._without[host.name]:
                line = f"connect {SERVICES[0]} 1000\n"
                done = host.run("--tag", "grp=1", PYTHON, "-c", CLIENT, input=line, timeout=90)
            self._judge(f"passer-by on {host.name}", json.loads(done.stdout), False, SERVICES[0], None)

    def _judge(self, what: str, answer: dict[str, Any], denied: bool, dest: str, address: str | None) -> None:
        error = answer.get("error")
        if denied:
            if error != errno.ECONNREFUSED:
                raise ViolationError(f"{what} is denied, and got {answer}")
            self.seen["refused"] += 1
            return
        if error:
            raise ViolationError(f"{what} was lost: {answer}")
        if not answer["whole"]:
            raise ViolationError(f"{what}: other bytes came back")
        if greeting := answer.get("greeting"):
            if greeting[0] != dest:
                raise ViolationError(f"{what} was delivered to {greeting}")
            if address and greeting[2] != address:
                raise ViolationError(f"{what} has {address} and is seen as {greeting[2]}")
            self.seen["connects"] += 1
        else:
            self.seen["kept on"] += 1

    # --- what happens meanwhile

    def _disturb(self) -> None:
        what = [self._move, self._flip, self._restart, self._kill, self._take_over]
        while not self._stop.wait(self._random.uniform(0.5, 2)):
            act = self._random.choice(what)
            self._doing = act.__name__.lstrip("_")
            act()
            self.seen[self._doing] += 1
            self._doing = f"after {self._doing}"

    def _move(self) -> None:
        """The new one is there before the old one goes."""
        old = self._instances.pop(self._random.randrange(len(self._instances)))
        self._instances.append(Instance(old.host, old.name, self.seen["move"] + 100))
        old.drain_and_stop()

    def _flip(self) -> None:
        denied = not self._denied
        self._denied, self._phase = None, self._phase + 1
        for host in self._net.hosts:
            reload(host, self._policies[host.name], RULE if denied else "", "policy ")
        self._denied, self._phase = denied, self._phase + 1

    def _restart(self) -> None:
        host = self._random.choice(self._net.hosts)
        with self._outage(host):
            host.server.terminate()
            host.server.wait(PATIENCE)
            self._serve(host)

    def _kill(self) -> None:
        host = self._random.choice(self._net.hosts)
        with self._outage(host):
            host.kill_server()
            self._serve(host)

    @contextmanager
    def _outage(self, host: Host) -> Iterator[None]:
        with self._without[host.name]:
            began = self._outage_began = time.monotonic()
            yield
            ended = time.monotonic()
        if ended - began > LONG:
            self._long_until = ended
        self._outage_began = math.inf
        self.seen["longest outage, ms"] = max(self.seen["longest outage, ms"], round(1000 * (ended - began)))

    def _take_over(self) -> None:
        host = self._random.choice(self._net.hosts)
        before = host.server
        with self._without[host.name]:
            self._serve(host, "--take-over")
            before.wait(PATIENCE)

    # --- the end

    def _look_at_what_is_left(self, hosts: list[Host], at_rest: dict[str, tuple[int, int]]) -> None:
        for host in hosts:
            host.end_apps()
        for host in hosts:
            eventually(lambda host=host: not host.rows("ps"))
            host.command("nodes", "--wait", "--timeout", str(TABLES_AGREE))
        eventually(lambda: hosts[0].tables() == hosts[1].tables())
        for host in hosts:
            if left := host.rows("services"):
                raise ViolationError(f"{host.name} still has services: {left}")
            listeners = host.trap.with_name("trap.sock.state") / "listeners"
            eventually(lambda listeners=listeners: not list(listeners.iterdir()))
            eventually(lambda host=host: holds_no_more(host.server.pid, at_rest[host.name]))
            memory = memory_of(host.server.pid) >> 20
            self.seen[f"MiB of {host.name}"] = memory
            if memory > MOST_MEMORY:
                raise ViolationError(f"the trap handler of {host.name} has grown to {memory} MiB")
        for host in hosts:
            host.server.terminate()
        for host in hosts:
            host.server.wait(PATIENCE)
            eventually(lambda host=host: host.namespace.processes().keys() == {host.namespace.pid})
            if str(host.directory) in Path("/proc/self/mountinfo").read_text():
                raise ViolationError(f"something is mounted in {host.directory}")


def say(soak: Soak, began: float) -> str:
    """What was done and seen so far, in a line."""
    return f"{time.monotonic() - began:.0f} s: " + ", ".join(
        f"{count} {what}" for what, count in sorted(soak.seen.items())
    )
