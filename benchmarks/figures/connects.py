"""Figure 3: connects a second, by the load and by what people use: wrk and nginx, redis-benchmark and redis."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from benchmarks import web
from benchmarks.figure import Figure, Goal, Row, Stage, Taken
from benchmarks.measures import connects
from benchmarks.programs import ask, count_calls, started
from benchmarks.ways import APPSWITCH, BRIDGE, LOOPBACK, REDIS, UNIX, WEB, WRAPPER, Ends, Way, run_to_end

CLIENTS = {1: "1 client", 8: "8 clients", 64: "64 clients"}
ROWS = {clients: f"connects, {name}" for clients, name in CLIENTS.items()}
WRK = {web.KEPT: "wrk, connections kept", web.CLOSED: "wrk, a connection each"}
CALLS = "system calls of wrk for a request, a connection each"
KEEPS = {"1": "redis-benchmark GET, connections kept", "0": "redis-benchmark GET, a connection each"}

Groups = list[Mapping[str, Callable[[], Mapping[str, float]]]]


def take(stage: Stage) -> Taken:
    """The load's, wrk's and redis-benchmark's."""

    def often(way: Way) -> str:
        slow = way.name == WRAPPER  # it takes seconds for a hundred when there are many clients
        return str(max(64, int((500 if slow else 5000) * stage.scale)))

    groups: Groups = [
        {way.name: ask(stage, way, ROWS[clients], connects, "connect", str(clients), often(way)) for way in stage.loads}
        for clients in CLIENTS
    ]
    taken = stage.in_turns(7, groups)
    for programs in (_wrk, _redis):
        with programs(stage) as theirs:
            taken |= stage.in_turns(5, theirs)
    return taken


@contextmanager
def _wrk(stage: Stage) -> Iterator[Groups]:
    with ExitStack() as stack:

        def serves(ends: Ends) -> bool:
            command = web.nginx(_directory(stage, "web", ends), f"{ends.bind}:{ends.port + WEB}")
            return started(stage, stack, ends, command, WEB)

        able = [ends for ends in stage.ends if ends.kind == "tcp" and ends.name != WRAPPER and serves(ends)]

        def once(ends: Ends, connection: str) -> dict[str, float]:
            command = web.wrk(ends.address, ends.at + WEB, connection, 1.0)
            got = web.told(run_to_end([*ends.client, *command], stage.bench.environment))
            return {WRK[connection]: got["requests"] / got["seconds"]}

        def calls(ends: Ends) -> dict[str, float]:
            command = web.wrk(ends.address, ends.at + WEB, web.CLOSED, 1.0)
            total, said = count_calls(stage.bench, ends, command)
            return {CALLS: total / web.told(said)["requests"]}

        groups: Groups = [{ends.name: partial(once, ends, connection) for ends in able} for connection in WRK]
        yield [*groups, {ends.name: partial(calls, ends) for ends in able if ends.name in (APPSWITCH, LOOPBACK)}]


@contextmanager
def _redis(stage: Stage) -> Iterator[Groups]:
    asked: dict[str, list[str]] = {}
    with ExitStack() as stack:

        def serves(ends: Ends) -> bool:
            directory = _directory(stage, "redis", ends)
            server = ["redis-server", "--save", "", "--protected-mode", "no", "--dir", str(directory)]
            if ends.kind == "unix":
                path = directory / "socket"
                asked[ends.name] = ["-s", str(path)]
                return started(stage, stack, ends, [*server, "--port", "0", "--unixsocket", str(path)], path)
            at = ["--bind", ends.bind, "--port", str(ends.port + REDIS)]
            asked[ends.name] = ["-h", ends.address, "-p", str(ends.at + REDIS)]
            return started(stage, stack, ends, [*server, *at], REDIS)

        able = [ends for ends in stage.ends if ends.name != WRAPPER and serves(ends)]

        def once(ends: Ends, keep: str) -> dict[str, float]:
            count = max(100, int((20000 if keep == "1" else 3000) * stage.scale))
            flags = ["-t", "get", "-c", "50", "-n", str(count), "-k", keep, "--csv"]
            said = run_to_end([*ends.client, "redis-benchmark", *asked[ends.name], *flags], stage.bench.environment)
            (rate,) = (line.split(",")[1] for line in said.splitlines() if line.startswith('"GET"'))
            return {KEEPS[keep]: float(rate.strip('"'))}

        yield [{ends.name: partial(once, ends, keep) for ends in able} for keep in KEEPS]


def _directory(stage: Stage, program: str, ends: Ends) -> Path:
    directory = stage.bench.home / program / ends.name.replace(" ", "-")
    directory.mkdir(parents=True)
    return directory


FIGURE = Figure(
    number=3,
    name="connects",
    title="Connects a second",
    wanted=(
        ">= 0.8 of plain Unix's connect rate, so about twice loopback TCP's, at 1, 8 and 64 clients; "
        "wrk without keep-alive at least 1.3x of the bridge's."
    ),
    notes="""\
A client of the load connects, waits for the end, closes, and begins again; 5,000 times in all.
The first three of a process, in which it is given what it needs to connect by itself, are not counted. wrk with 32
connections asks an nginx of two workers for a few bytes; redis-benchmark has 50. System calls are strace's
count.""",
    rows=(
        *(Row(name, "1/s", "connects a second", clients, "clients") for clients, name in ROWS.items()),
        *(Row(name, "requests/s", "requests a second") for name in (*WRK.values(), *KEEPS.values())),
        Row(CALLS, ""),
    ),
    take=take,
    goals=(
        Goal(">= 0.8 of the plain Unix socket", tuple(ROWS.values()), UNIX, at_least=0.8),
        Goal("about twice TCP over loopback (1.8)", tuple(ROWS.values()), LOOPBACK, at_least=1.8),
        Goal("wrk, a connection each: >= 1.3x the bridge", (WRK[web.CLOSED],), BRIDGE, at_least=1.3),
    ),
    seconds=220,
    needs=("nginx", "wrk", "redis-server", "redis-benchmark", "strace"),
)
