"""The ways from a client to a server: each starts the load's server and says how a client of it is run."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from attrs import frozen

from appswitch.host.tracer import VARIABLE

APPSWITCH, UNIX, LOOPBACK, BRIDGE = "AppSwitch", "Unix socket", "TCP loopback", "TCP bridge"
BY_TCP = "spawn --tcp"

PORT = 7000  # and the two after it, in namespaces of our own
VIRTUAL_IP, TCP_IP = "10.77.7.1", "10.77.7.2"
BRIDGED_IPS = ("10.77.8.1", "10.77.8.2")  # server, client


@frozen
class Way:
    """client: what runs a client, up to the load's own arguments."""

    name: str
    client: tuple[str, ...]

    def ask(self, environment: dict[str, str], *arguments: str) -> str:
        """Runs a client to its end; returns what it prints."""
        done = subprocess.run(
            [*self.client, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=60,
        )
        return done.stdout


@frozen
class Bench:
    """Where it all runs. load: the compiled load generator; environment: of whatever is run."""

    home: Path
    load: Path
    environment: dict[str, str]


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
            [sys.executable, "-m", "appswitch", "serve", "--ready-fd", str(write_end)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[write_end],
        )
        stack.callback(_stop, handler)
        os.close(write_end)
        said = os.read(ready, 16)
        os.close(ready)
        if not said:
            raise RuntimeError("no trap handler: " + (home / "serve.log").read_text())
        yield Bench(home, load, environment)


@contextmanager
def appswitch(bench: Bench) -> Iterator[Way]:
    """From spawn to spawn."""
    spawn = [sys.executable, "-m", "appswitch", "spawn"]
    with served(bench, [*spawn, "--ip", VIRTUAL_IP, "--"], "tcp", "0.0.0.0", PORT):
        yield _way(bench, APPSWITCH, [*spawn, "--"], "tcp", VIRTUAL_IP, PORT)


@contextmanager
def by_tcp(bench: Bench) -> Iterator[Way]:
    """The same, but for `spawn --tcp`."""
    spawn = [sys.executable, "-m", "appswitch", "spawn"]
    with served(bench, [*spawn, "--tcp", "--ip", TCP_IP, "--"], "tcp", "0.0.0.0", PORT):
        yield _way(bench, BY_TCP, [*spawn, "--"], "tcp", TCP_IP, PORT)


@contextmanager
def traced(bench: Bench, tracer: str, ip: str) -> Iterator[Way]:
    """From spawn to spawn, both ends traced that way (host/tracer.py): `bench.load` is linked statically."""
    spawn = ["env", f"{VARIABLE}={tracer}", sys.executable, "-m", "appswitch", "spawn"]
    with served(bench, [*spawn, "--ip", ip, "--"], "tcp", "0.0.0.0", PORT):
        yield _way(bench, tracer, [*spawn, "--"], "tcp", ip, PORT)


@contextmanager
def unix_socket(bench: Bench) -> Iterator[Way]:
    """A Unix stream socket: what AppSwitch can at best be."""
    path = str(bench.home / "unix")
    with served(bench, [], "unix", path, 0):
        yield _way(bench, UNIX, [], "unix", path, 0)


@contextmanager
def loopback(bench: Bench) -> Iterator[Way]:
    """TCP over this host's loopback."""
    port = _free_ports(3)
    with served(bench, [], "tcp", "127.0.0.1", port):
        yield _way(bench, LOOPBACK, [], "tcp", "127.0.0.1", port)


@contextmanager
def bridge(bench: Bench) -> Iterator[Way]:
    """TCP between two namespaces, veth pairs into a bridge: as containers have it. Root only.

    The bridge has a namespace of its own, so nothing of the host's network is touched, and all goes with the processes
    that hold the namespaces. (Named ones are mounts, which others on the machine may move about.)
    """
    with ExitStack() as stack:
        hub, *ends = [stack.enter_context(_namespace()) for _ in range(3)]
        _inside(hub, "hub", *map(str, ends))
        for pid, address in zip(ends, BRIDGED_IPS, strict=True):
            _inside(pid, "end", address)
        inside = [["nsenter", f"--net=/proc/{pid}/ns/net", "--"] for pid in ends]
        with served(bench, inside[0], "tcp", BRIDGED_IPS[0], PORT):
            yield _way(bench, BRIDGE, inside[1], "tcp", BRIDGED_IPS[0], PORT)


@contextmanager
def _namespace() -> Iterator[int]:
    """A network namespace; the pid of the process that holds it."""
    holder = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "echo; read end"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout
        holder.stdout.readline()
        yield holder.pid
    finally:
        _stop(holder)


def _inside(pid: int, *arguments: str) -> None:
    command = ["nsenter", f"--net=/proc/{pid}/ns/net", "--", sys.executable, "-m", "benchmarks.bridge", *arguments]
    subprocess.run(command, check=True)


def _way(bench: Bench, name: str, prefix: Sequence[str], kind: str, address: str, port: int) -> Way:
    return Way(name, (*prefix, str(bench.load), "client", kind, address, str(port)))


@contextmanager
def served(bench: Bench, prefix: Sequence[str], kind: str, address: str, port: int) -> Iterator[None]:
    """A server of the load that `prefix` runs; ready."""
    server = subprocess.Popen(
        [*prefix, bench.load, "server", kind, address, str(port)],
        env=bench.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout
        if server.stdout.readline() != "ready\n":
            raise RuntimeError(f"no server: {server.args!r}")
        yield
    finally:
        _stop(server)


def _stop(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
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
