"""The ways from a client to a server: where the two run, whatever program they are, and the load's own two.

`Ends` are what a way is for any program: what runs a server, what runs a client, and the addresses that they use.
`loaded` starts the load's server (load.c) at them, and has the `Way` by which its clients are run. What passes through
a proxy at each end is in sidecars.py.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal, TypedDict

from attrs import frozen

from appswitch.host.tracer import VARIABLE
from tests.harness import eventually
from tests.hosts import Namespace
from tests.zygote import MODULE as COMMAND

APPSWITCH, UNIX, LOOPBACK, BRIDGE = "AppSwitch", "Unix socket", "TCP loopback", "TCP bridge"
HAPROXY, NGINX, WRAPPER = "HAProxy sidecars", "nginx sidecars", "socket_wrapper"
BY_TCP = "spawn --tcp"
WAYS = (APPSWITCH, UNIX, LOOPBACK, BRIDGE, HAPROXY, NGINX, WRAPPER, BY_TCP)

PORT = 7000  # the first of a server's, in namespaces of our own
IPERF, WEB, REDIS, PORTS = 3, 4, 5, 6
"""Which of a server's ports are whose; the load has 0 to 2. PORTS: how many there are."""
VIRTUAL_IP, TCP_IP = "10.77.7.1", "10.77.7.2"
BRIDGED_IPS = ("10.77.8.1", "10.77.8.2")  # server, client
WRAPPED_IP = "127.0.0.10"
WRAPPER_LIBRARY = "libsocket_wrapper.so"


@frozen
class Ends:
    """Where a server and its clients run. server, client: what runs a command there.

    bind: the address that the server has, for a Unix socket the path's beginning; port: its first port;
    address, at: what a client finds it at; between: pids of what takes part beside the two.
    """

    name: str
    server: tuple[str, ...] = ()
    client: tuple[str, ...] = ()
    bind: str = "0.0.0.0"
    address: str = "127.0.0.1"
    port: int = PORT
    at: int = PORT
    kind: str = "tcp"
    between: tuple[int, ...] = ()


@frozen
class Way:
    """client: what runs a client of the load, up to the load's own arguments.

    pids: of its server, and of what else takes part; so do those that descend from them (costs.family).
    """

    name: str
    client: tuple[str, ...]
    pids: tuple[int, ...] = ()

    def ask(self, environment: dict[str, str], *arguments: str) -> str:
        """Runs a client to its end; returns what it prints."""
        return run_to_end([*self.client, *arguments], environment)


@frozen
class Bench:
    """Where it all runs. load: the compiled load generator; environment: of whatever is run; handler: its pid."""

    home: Path
    load: Path
    environment: dict[str, str]
    handler: int = 0


class Alone(TypedDict):
    """Options of a process."""

    stdin: int
    text: Literal[True]
    start_new_session: bool


ALONE: Alone = {"stdin": subprocess.DEVNULL, "text": True, "start_new_session": True}
"""A session of its own for each server and client: processors are shared by sessions first (autogroup in sched(7)), and
the proxies have theirs, too.
"""


def run_to_end(command: Sequence[str], environment: dict[str, str]) -> str:
    """What it prints. RuntimeError: it fails; TimeoutExpired: a minute isn't enough for it."""
    done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=60, **ALONE)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr[-500:].strip()}")
    return done.stdout


def compile_load(output: Path, *flags: str, name: str = "load") -> Path:
    """The load's program, or another one of here; returns `output`."""
    source = Path(__file__).with_name(f"{name}.c")
    subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", *flags, "-o", output, source], check=True)
    return output


@contextmanager
def prepare(home: Path) -> Iterator[Bench]:
    """Compiles the load, starts a trap handler, stops it at the end."""
    load = compile_load(home / "load")
    environment = {**os.environ, "APPSWITCH_SOCKET": str(home / "trap.sock")}
    environment.pop("LD_PRELOAD", None)
    with (home / "serve.log").open("w") as log, ExitStack() as stack:
        ready, write_end = os.pipe()
        handler = subprocess.Popen(
            [*COMMAND, "serve", "--ready-fd", str(write_end)],
            env=environment,
            stdout=log,
            stderr=log,
            pass_fds=[write_end],
            **ALONE,
        )
        stack.callback(stop, handler)
        os.close(write_end)
        said = os.read(ready, 16)
        os.close(ready)
        if not said:
            raise RuntimeError("no trap handler: " + (home / "serve.log").read_text())
        yield Bench(home, load, environment, handler.pid)


# --- the ways


def appswitch(bench: Bench) -> Ends:
    """From spawn to spawn."""
    return _spawned(bench, APPSWITCH, VIRTUAL_IP)


def by_tcp(bench: Bench) -> Ends:
    """The same, but for `spawn --tcp`."""
    return _spawned(bench, BY_TCP, TCP_IP, "--tcp")


def traced(bench: Bench, tracer: str, ip: str) -> Ends:
    """From spawn to spawn, both ends traced that way (host/tracer.py): `bench.load` is linked statically."""
    return _spawned(bench, tracer, ip, before=("env", f"{VARIABLE}={tracer}"))


def _spawned(bench: Bench, name: str, ip: str, *flags: str, before: tuple[str, ...] = ()) -> Ends:
    spawn = (*before, *COMMAND, "spawn")
    server = (*spawn, *flags, "--ip", ip, "--")
    return Ends(name, server, client=(*spawn, "--"), address=ip, between=(bench.handler,))


def unix_socket(bench: Bench) -> Ends:
    """A Unix stream socket: what AppSwitch can at best be."""
    path = str(bench.home / "unix")
    return Ends(UNIX, bind=path, address=path, port=0, at=0, kind="unix")


def loopback() -> Ends:
    """TCP over this host's loopback."""
    port = _free_ports(PORTS)
    return Ends(LOOPBACK, bind="127.0.0.1", port=port, at=port)


def wrapper(bench: Bench) -> Ends:
    """Another preloaded library that makes Unix sockets of TCP, Samba's, for tests: one directory has all of them."""
    directory = bench.home / "wrapped"
    directory.mkdir(exist_ok=True)
    preload = ("env", f"SOCKET_WRAPPER_DIR={directory}", f"LD_PRELOAD={WRAPPER_LIBRARY}")
    return Ends(WRAPPER, server=preload, client=preload, bind=WRAPPED_IP, address=WRAPPED_IP)


def has_wrapper() -> bool:
    """Whether it is installed: the loader says so."""
    asked = ["env", f"LD_PRELOAD={WRAPPER_LIBRARY}", "true"]
    return not subprocess.run(asked, stderr=subprocess.PIPE, check=False).stderr


@contextmanager
def bridged() -> Iterator[tuple[Namespace, Namespace]]:
    """Namespaces for a server and its clients, veth pairs into a bridge: as containers have it. Root only.

    The bridge has a namespace of its own, so nothing of the host's network is touched, and all goes with the processes
    that hold the namespaces.
    """
    with ExitStack() as stack:
        hub, server, client = made = [Namespace() for _ in range(3)]
        for each in made:
            stack.callback(each.close)
        hub.run("ip", "link", "add", "bridge", "type", "bridge")
        hub.run("ip", "link", "set", "bridge", "up")
        for end, address in ((server, BRIDGED_IPS[0]), (client, BRIDGED_IPS[1])):
            port = f"to{end.pid}"
            hub.run("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", str(end.pid))
            hub.run("ip", "link", "set", port, "master", "bridge", "up")
            end.run("ip", "link", "set", "lo", "up")
            end.run("ip", "addr", "add", f"{address}/24", "dev", "eth0")
            end.run("ip", "link", "set", "eth0", "up")
        yield server, client


def over_bridge(server: Namespace, client: Namespace) -> Ends:
    """TCP between two such namespaces."""
    return Ends(BRIDGE, server=tuple(server.enter), client=tuple(client.enter), address=BRIDGED_IPS[0])


# --- the load's server and clients


@contextmanager
def loaded(bench: Bench, ends: Ends) -> Iterator[Way]:
    """The load's server there, and how a client of it is run. AssertionError: no client gets an answer."""
    with served(bench, ends.server, ends.kind, ends.bind, ends.port) as server:
        client = (*ends.client, str(bench.load), "client", ends.kind, ends.address, str(ends.at))
        eventually(lambda: _answers([*client, "ping", "1", "1"], bench.environment), within=10.0)
        yield Way(ends.name, client, (server.pid, *ends.between))


def _answers(client: Sequence[str], environment: dict[str, str]) -> bool:
    quiet = subprocess.DEVNULL
    return subprocess.run(client, env=environment, stdin=quiet, stdout=quiet, stderr=quiet, check=False).returncode == 0


@contextmanager
def served(bench: Bench, prefix: Sequence[str], kind: str, address: str, port: int) -> Iterator[subprocess.Popen[str]]:
    """A server of the load that `prefix` runs; ready."""
    server = subprocess.Popen(
        [*prefix, bench.load, "server", kind, address, str(port)],
        env=bench.environment,
        stdout=subprocess.PIPE,
        **ALONE,
    )
    try:
        assert server.stdout
        if server.stdout.readline() != "ready\n":
            raise RuntimeError(f"no server: {server.args!r}")
        yield server
    finally:
        stop(server)
        if server.stdout:
            server.stdout.close()


def stop(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    """Ends it."""
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_ports(count: int) -> int:
    """The first of so many free ports in a row, below those that the kernel hands out."""
    for first in range(20000, 30000, count):
        with ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    stack.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            return first
    raise RuntimeError("no free ports")
