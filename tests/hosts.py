"""Hosts on one machine: network namespaces that a bridge joins, each with a trap handler of its own. Root only.

All of it goes with the processes that hold the namespaces; nothing of the machine's own network is touched.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.harness import Switch, eventually, stop

NETWORK = "10.99.0."  # /24; a namespace's own, so it meets nobody else's
INTERNET = "192.88.99."  # /24; public, and used by nobody any more (RFC 7526)
INTERNET6 = "2001:db8:99::"  # /64
SILENT = "192.88.98.9"  # no answer comes from there


class Namespace:
    """A network namespace and the process that holds it."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[str]] = []
        self._holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo; read end"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._holder.stdout
        self._holder.stdout.readline()
        self.pid = self._holder.pid
        self.enter = ["nsenter", f"--net=/proc/{self.pid}/ns/net", "--"]

    def run(self, *command: str) -> str:
        """A command in there, to its end; returns what it prints."""
        done = subprocess.run([*self.enter, *command], check=False, text=True, capture_output=True, timeout=30)
        assert done.returncode == 0, done
        return done.stdout

    def start(self, *command: str, log: Path) -> subprocess.Popen[str]:
        """A command in there that goes on; ended when the namespace is closed. log: for what it says."""
        with log.open("w") as output:
            process = subprocess.Popen(
                [*self.enter, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def processes(self) -> dict[int, str]:
        """Those in there, and their names."""
        there, found = Path(f"/proc/{self.pid}/ns/net").readlink(), dict[int, str]()
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has just ended
                if (process / "ns/net").readlink() == there:
                    found[int(process.name)] = (process / "comm").read_text().strip()
        return found

    def close(self) -> None:
        for process in reversed(self._started):
            stop(process)
        stop(self._holder)
        for pipe in (self._holder.stdin, self._holder.stdout):
            assert pipe
            pipe.close()


class Host(Switch):
    """A host: `address` is where others reach it. What Switch does is done in its namespace."""

    def __init__(self, directory: Path, name: str, address: str, namespace: Namespace, hub: Namespace) -> None:
        super().__init__(directory)
        self.name = name
        self.address = address
        self.namespace = namespace
        self.prefix, self.network = namespace.enter, namespace.pid
        self._hub = hub
        self._port = f"to{namespace.pid}"

    def serve(self, *flags: str) -> subprocess.Popen[str]:
        """Starts its trap handler; `flags` say how it finds the others."""
        return super().serve("--node", self.name, "--bind", self.address, *flags)

    def cut_off(self) -> None:
        """Takes its link down: nobody reaches it, and it reaches nobody."""
        self._hub.run("ip", "link", "set", self._port, "down")

    def join_again(self) -> None:
        """Puts the link up."""
        self._hub.run("ip", "link", "set", self._port, "up")

    def kill(self) -> None:
        """`kill -9` of everything that was started here."""
        for process in self._started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._started.clear()

    def tables(self) -> dict[str, int]:
        """Node -> the seq of its table as this one has it, of those that are alive."""
        return {row["name"]: row["seq"] for row in self.rows("nodes") if row["state"] == "alive"}


class Network:
    """Hosts and the bridge between them."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self._directory = directory
        self._stack = stack
        self._hub = Namespace()
        stack.callback(self._hub.close)
        self._hub.run("ip", "link", "add", "bridge", "type", "bridge")
        self._hub.run("ip", "link", "set", "bridge", "up")
        self.key = directory / "key"
        self.key.write_text(subprocess.run(["serf", "keygen"], check=True, text=True, capture_output=True).stdout)
        self.key.chmod(0o600)
        self.hosts: list[Host] = []

    def add(self, name: str) -> Host:
        """One more host, without a trap handler."""
        number = len(self.hosts) + 1
        directory = self._directory / name
        directory.mkdir()
        namespace = Namespace()
        self._stack.callback(namespace.close)
        port = f"to{namespace.pid}"
        peer = ["peer", "name", "eth0", "netns", str(namespace.pid)]
        self._hub.run("ip", "link", "add", port, "type", "veth", *peer)
        self._hub.run("ip", "link", "set", port, "master", "bridge", "up")
        address = NETWORK + str(number)
        namespace.run("ip", "link", "set", "lo", "up")
        namespace.run("ip", "addr", "add", f"{address}/24", "dev", "eth0")
        namespace.run("ip", "link", "set", "eth0", "up")
        host = Host(directory, name, address, namespace, self._hub)
        self._stack.callback(host.close)
        self.hosts.append(host)
        return host

    def internet(self, *gateways: Host) -> Namespace:
        """What is outside: a namespace with the addresses INTERNET + 1 to 9 and INTERNET6 + 1, that these hosts alone
        reach. The first of them has INTERNET + 101 there, and so on.
        """
        outside = Namespace()
        self._stack.callback(outside.close)
        outside.run("ip", "link", "set", "lo", "up")
        outside.run("ip", "link", "add", "bridge", "type", "bridge")
        outside.run("ip", "link", "set", "bridge", "up")
        for number in range(1, 10):
            outside.run("ip", "addr", "add", f"{INTERNET}{number}/24", "dev", "bridge")
        outside.run("ip", "addr", "add", f"{INTERNET6}1/64", "dev", "bridge", "nodad")
        outside.run("ip", "route", "add", "blackhole", SILENT)
        for number, host in enumerate(gateways, 101):
            port = f"to{host.namespace.pid}"
            peer = ["peer", "name", "eth1", "netns", str(host.namespace.pid)]
            outside.run("ip", "link", "add", port, "type", "veth", *peer)
            outside.run("ip", "link", "set", port, "master", "bridge", "up")
            host.namespace.run("ip", "addr", "add", f"{INTERNET}{number}/24", "dev", "eth1")
            host.namespace.run("ip", "addr", "add", f"{INTERNET6}{number}/64", "dev", "eth1", "nodad")
            host.namespace.run("ip", "link", "set", "eth1", "up")
            host.namespace.run("ip", "route", "add", SILENT, "via", f"{INTERNET}1")
        return outside

    def serve(self, *names: str, flags: Sequence[str] = (), gateways: Sequence[str] = ()) -> list[Host]:
        """So many hosts with their trap handlers, all in agreement. gateways: which of them are."""
        hosts = [self.add(name) for name in names]
        first = hosts[0].address
        for host in hosts:
            join = [] if host is hosts[0] else ["--join", first]
            own = ["--gateway"] if host.name in gateways else []
            host.serve("--key-file", str(self.key), *join, *own, *flags)
        for host in hosts:
            eventually(lambda host=host: set(names) <= set(host.tables()))
            host.command("nodes", "--wait")
        return hosts

    def end(self) -> None:
        """Ends all apps, and kills the trap handlers: no leave is taken, which takes a second or two."""
        hosts = [host for host in self.hosts if hasattr(host, "server")]
        for host in hosts:
            host.end_apps()
        for host in hosts:
            host.server.kill()


@contextmanager
def network() -> Iterator[Network]:
    """An empty network."""
    with tempfile.TemporaryDirectory(prefix="as-hosts-") as directory, ExitStack() as stack:
        Path(directory).chmod(0o755)
        made = Network(Path(directory), stack)
        try:
            yield made
        finally:
            made.end()


def only(rows: list[dict[str, Any]], **wanted: Any) -> list[dict[str, Any]]:
    """The rows with these values."""
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]
