"""Figure 7: ten thousand connections that stay open, and a thousand apps on one host."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path

from benchmarks import costs
from benchmarks.figure import Figure, Goal, Row, Stage, Taken
from benchmarks.ways import APPSWITCH, LOOPBACK, PORT, UNIX
from tests.harness import Switch, free_port, running_switch

CONNECTIONS, APPS = 10_000, 1_000
LONGEST = 100.0  # seconds that the apps may take to start: then what is there is counted
ROOM = 4 << 30  # bytes of memory that are left to others
ANSWER, OPENED, ASKED = "open connections that answer", "they are opened in", "all are asked and have answered in"
HANDLER_EACH, HANDLER_CPU = "trap handler's memory for each connection", "trap handler's processor for all"
APPS_ANSWER, STARTED, APP_CPU = "apps that answer", "they are started in", "processor for each start, of all"
HANDLER_APP, WRAPPERS = "trap handler's memory for each app", "memory of `spawn`'s own processes, each app"

SERVER = """
import select, socket, sys
kind, at, port = sys.argv[1:]
if kind == "unix":
    listener = socket.socket(socket.AF_UNIX); listener.bind(at); listener.listen(4096)
else:
    listener = socket.create_server((at, int(port)), backlog=4096)
print(flush=True)
there, poll = {}, select.epoll()
poll.register(listener, select.EPOLLIN)
while True:
    for fd, _ in poll.poll():
        if fd == listener.fileno():
            end = listener.accept()[0]
            there[end.fileno()] = end
            poll.register(end, select.EPOLLIN)
        elif said := there[fd].recv(64):
            there[fd].send(said)
        else:
            poll.unregister(fd)
            there.pop(fd).close()
"""
"""Sends back what is said to it."""

CLIENT = """
import json, socket, sys, time
kind, at, port, count = sys.argv[1:]
where = at if kind == "unix" else (at, int(port))
def ask(ends):
    for number, end in enumerate(ends):
        end.send(b"%d" % number)
    return sum(end.recv(64) == b"%d" % number for number, end in enumerate(ends))
ends, start = [], time.monotonic()
for _ in range(int(count)):
    end = socket.socket(socket.AF_UNIX if kind == "unix" else socket.AF_INET)
    end.connect(where)  # waits where there is no room: with a time limit, a Unix socket wouldn't (EAGAIN)
    end.settimeout(30)
    ends.append(end)
opened = time.monotonic()
ask(ends)
again = time.monotonic()
answered = ask(ends)
print(json.dumps({"opened": opened - start, "asked": time.monotonic() - again, "answered": answered}), flush=True)
sys.stdin.read()
"""
"""Opens all, asks all twice, says what it saw, and keeps them until its input ends."""

VISIT = """
import socket, sys
port, answered = int(sys.argv[1]), 0
for ip in sys.stdin.read().split():
    with socket.socket() as end:
        end.settimeout(10)
        answered += end.connect_ex((ip, port)) == 0 and end.recv(1) == b""
print(answered)
"""


def take(stage: Stage) -> Taken:
    """The connections by three ways, in turns; the apps once."""
    count, apps = int(CONNECTIONS * stage.scale), int(APPS * stage.scale)
    ways = {APPSWITCH: _by_appswitch, UNIX: _by_unix, LOOPBACK: _by_loopback}
    home = stage.bench.home
    taken = stage.in_turns(3, [{name: partial(hold, home, count) for name, hold in ways.items()}])
    stage.rounds = 1
    return taken | stage.in_turns(1, [{APPSWITCH: partial(_apps, stage.bench.load, apps)}])


# --- connections


def _by_appswitch(_: Path, count: int) -> dict[str, float]:
    with running_switch() as switch:
        handler = [switch.server.pid]
        spawn = [*switch.appswitch, "spawn"]
        with _Crowd([*spawn, "--ip", "10.77.7.7", "--"], spawn, ("tcp", "10.77.7.7", str(PORT)), switch) as held:
            memory, cpu = costs.memory(handler), costs.processor(handler)
            found = held.open(count)
            cpu = costs.processor(handler) - cpu
            return {
                **found,
                HANDLER_EACH: (costs.memory(handler) - memory) / count / 1e3,
                HANDLER_CPU: cpu,
            }


def _by_unix(home: Path, count: int) -> dict[str, float]:
    path = home / "crowd"
    path.unlink(missing_ok=True)
    with _Crowd([], [], ("unix", str(path), "0")) as held:
        return held.open(count)


def _by_loopback(_: Path, count: int) -> dict[str, float]:
    with _Crowd([], [], ("tcp", "127.0.0.1", str(free_port()))) as held:
        return held.open(count)


class _Crowd:
    """A server and one client with all of its connections, until the end. switch: whose programs they are."""

    def __init__(
        self, server: Sequence[str], client: Sequence[str], where: Sequence[str], switch: Switch | None = None
    ) -> None:
        self._client, self._where = client, where
        self._options = {"env": switch.environment} if switch else {}
        self._programs = [self._start([*server, sys.executable, "-c", SERVER, *where])]

    def __enter__(self) -> _Crowd:
        assert self._programs[0].stdout
        self._programs[0].stdout.readline()
        return self

    def open(self, count: int) -> dict[str, float]:
        """All are open when it returns."""
        client = self._start([*self._client, sys.executable, "-c", CLIENT, *self._where, str(count)])
        self._programs.append(client)
        assert client.stdout
        said = client.stdout.readline()
        if not said:
            raise RuntimeError(f"the client of {count} connections failed")
        got = json.loads(said)
        return {ANSWER: got["answered"], OPENED: got["opened"], ASKED: got["asked"]}

    def __exit__(self, *_: object) -> None:
        for each in reversed(self._programs):
            each.terminate()
        for each in reversed(self._programs):
            each.communicate(timeout=20)

    def _start(self, command: list[str]) -> subprocess.Popen[str]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        return subprocess.Popen(command, text=True, **pipes, **self._options)  # type: ignore[call-overload,no-any-return]


# --- apps


def _apps(load: Path, count: int) -> dict[str, float]:
    """So many servers of the load, each an app with an address of its own; then one client visits all."""
    ips = [str(IPv4Address("10.88.0.1") + number) for number in range(count)]
    with running_switch() as switch:
        handler = [switch.server.pid]
        rest = costs.memory(handler)
        start, before = time.monotonic(), costs.processor(costs.family([switch.server.pid]))
        programs: dict[str, subprocess.Popen[str]] = {}

        def begin(ip: str) -> None:
            if time.monotonic() - start < LONGEST and costs.available() > ROOM:
                command = ["--ip", ip, "--", str(load), "server", "tcp", "0.0.0.0", str(PORT)]
                program = programs[ip] = switch.spawn(*command, stdout=subprocess.PIPE)
                assert program.stdout
                program.stdout.readline()

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(begin, ips))
        took = time.monotonic() - start
        family = costs.family([switch.server.pid, *(each.pid for each in programs.values())])
        spent = costs.processor(family) - before
        wrappers = [pid for pid in family if costs.is_spawn(pid)]
        visit = [sys.executable, "-c", VISIT, str(PORT + 2)]
        said = switch.run("--", *visit, input="\n".join(programs), timeout=120).stdout
        found = {
            APPS_ANSWER: float(said),
            STARTED: took,
            APP_CPU: spent / len(programs) * 1e3,
            HANDLER_APP: (costs.memory(handler) - rest) / len(programs) / 1e3,
            WRAPPERS: costs.memory(wrappers) / len(programs) / 1e3,
        }
        for each in programs.values():
            each.terminate()
        for each in programs.values():
            each.communicate(timeout=30)
    return found


FIGURE = Figure(
    number=7,
    name="crowds",
    title="Ten thousand connections, a thousand apps",
    wanted="held, with what each costs.",
    notes="""\
One client opens 10,000 connections to one server and asks each of them twice; the same programs by a plain Unix socket
and by TCP. Then 1,000 apps are started, four at a time, each with an address and three listeners, and a client visits
all. What a start costs is of `spawn`, the program and the trap handler together.""",
    rows=(
        Row(ANSWER, ""),
        Row(OPENED, "s"),
        Row(ASKED, "s"),
        Row(HANDLER_EACH, "kB"),
        Row(HANDLER_CPU, "s"),
        Row(APPS_ANSWER, ""),
        Row(STARTED, "s"),
        Row(APP_CPU, "ms"),
        Row(HANDLER_APP, "kB"),
        Row(WRAPPERS, "kB"),
    ),
    take=take,
    goals=(
        Goal("10,000 open connections answer", (ANSWER,), at_least=CONNECTIONS),
        Goal("1,000 apps on one host answer", (APPS_ANSWER,), at_least=APPS),
    ),
    seconds=160,
    has_ways=False,
)
