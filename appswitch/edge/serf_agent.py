"""The process of a Serf agent: its configuration, its start, what it says, its end.

Its keys are in a file of mode 0600, never among its arguments. It ends with us, whatever ends us (host/tied.py).
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import trio
from attrs import frozen

from appswitch.edge.serf_joins import joined
from appswitch.edge.serf_rpc import Rpc
from appswitch.errors import AppSwitchError
from appswitch.host import tied

START_WITHIN = 10.0  # seconds
RPC_POLL = 0.02  # seconds; an agent is there after some 50 ms
PREDECESSOR_WITHIN = 2.0  # seconds; one whose trap handler was killed may hold the port a moment longer

TUNING: Mapping[str, object] = {
    # Gossip every 200 ms, each message four times. "local" is twice as quick in the median, but sends each only twice:
    # one in a hundred events then takes seconds (docs/design.md). Single timings can't be configured.
    "profile": "lan",
    # With the default, 512, an event of 480 bytes passes only while Serf's clock, which goes along, is a small number.
    "user_event_size_limit": 544,
    # How long a leave waits until it is sent; the default, 5 s, passes when the others have just gone.
    "broadcast_timeout": "1s",
}
"""What differs from Serf's defaults. Kept on purpose: who has failed is remembered for 24 h, and so is who has left, so
that a host that was cut off meanwhile can't bring it back; members have coordinates."""

_LINE = re.compile(r"\s*\d{4}/\d\d/\d\d \d\d:\d\d:\d\d \[(\w+)\] (.*)")


@frozen
class AgentSettings:
    """name: within Serf; program: a name on PATH, or a path; key: base64, None: nothing is encrypted."""

    program: str
    directory: Path
    name: str
    bind: tuple[str, int]
    key: str | None
    tags: Mapping[str, str]


class Agent:
    """A running one. rpc_port, auth_key: how to ask it."""

    def __init__(self, process: subprocess.Popen[bytes], rpc_port: int, auth_key: str) -> None:
        self._process = process
        self._pidfd = os.pidfd_open(process.pid)
        self.rpc_port = rpc_port
        self.auth_key = auth_key

    @property
    def pid(self) -> int:
        return self._process.pid

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    async def ended(self) -> None:
        """Returns once the process has ended."""
        await trio.lowlevel.wait_readable(self._pidfd)

    def last_words(self) -> str:
        """Of one that has ended before anybody listened."""
        assert self._process.stdout is not None
        said = self._process.stdout.read().decode(errors="replace").splitlines()
        return next((line.removeprefix("==> ") for line in reversed(said) if line.strip()), "it said nothing")

    async def listen(self, hear: Callable[[str], None]) -> None:
        """Passes on what it logs, line by line, until it ends."""
        assert self._process.stdout is not None
        rest = b""
        async with trio.lowlevel.FdStream(os.dup(self._process.stdout.fileno())) as output:
            async for data in output:
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    if match := _LINE.match(line.decode(errors="replace")):
                        hear(match[2])

    async def connect(self) -> Rpc:
        """A connection to it. OSError, ValueError, RpcError."""
        return await Rpc.open(self.rpc_port, self.auth_key)

    def close(self) -> None:
        """Kills it, if it hasn't ended."""
        self._process.kill()
        self._process.wait()
        os.close(self._pidfd)
        assert self._process.stdout is not None
        self._process.stdout.close()


async def start(settings: AgentSettings) -> tuple[Agent, Rpc]:
    """An agent that answers, and a connection to it. AppSwitchError: it can't be started, and why."""
    if shutil.which(settings.program) is None:
        hint = "install the Debian package serf, or say with --serf where the program is"
        raise AppSwitchError("no-serf", f"Serf, which keeps hosts together, isn't there: {settings.program}", hint)
    port = _free_loopback_port()
    await _check_address(*settings.bind)
    auth_key = secrets.token_hex(16)
    try:
        file = _write_configuration(settings, port, auth_key)
    except OSError as error:
        reason = f"{settings.directory} can't be used: {error.strerror}"
        raise AppSwitchError("no-directory", reason, "name another place with --state-dir") from None
    agent = Agent(_spawn(settings.program, file), port, auth_key)
    try:
        return agent, await _first_answer(agent)
    except BaseException:
        agent.close()
        raise


def _spawn(program: str, configuration_file: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        tied.command(program, "agent", "-config-file", str(configuration_file)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # a ^C is for us, and we take leave of the others first
    )


async def _first_answer(agent: Agent) -> Rpc:
    with trio.move_on_after(START_WITHIN):
        while not agent.has_ended():
            with suppress(OSError):
                return await agent.connect()
            await trio.sleep(RPC_POLL)
        raise AppSwitchError("serf-failed", f"the Serf agent doesn't start: {agent.last_words()}")
    raise AppSwitchError("serf-failed", f"the Serf agent doesn't answer within {START_WITHIN:g} s of its start")


async def _check_address(host: str, port: int) -> None:
    """Serf says this, too, but only among other things. AppSwitchError: the address isn't ours, or it is taken."""
    deadline = trio.current_time() + PREDECESSOR_WITHIN
    while True:
        try:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                _try_bind(kind, host, port)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or trio.current_time() > deadline:
                raise _no_address(joined(host, port), error) from None
            await trio.sleep(0.1)
        else:
            return


def _no_address(address: str, error: OSError) -> AppSwitchError:
    if error.errno == errno.EADDRINUSE:
        hint = "another trap handler may run here; name another port with --bind ADDR:PORT"
        return AppSwitchError("port-taken", f"{address} is taken, so the hosts can't be reached by it", hint)
    if error.errno == errno.EADDRNOTAVAIL:
        return AppSwitchError("bad-bind", f"{address} is no address of this host", "`ip address` lists those that are")
    return AppSwitchError("bad-bind", f"{address} can't be used: {os.strerror(error.errno or errno.EIO)}")


def _try_bind(kind: socket.SocketKind, host: str, port: int) -> int:
    """The port that it got. OSError."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind) as trial:
        if kind is socket.SOCK_STREAM:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Go does: connections in TIME_WAIT
        trial.bind((host, port))
        bound: int = trial.getsockname()[1]
        return bound


def _free_loopback_port() -> int:
    """Serf's RPC can't be a Unix socket, nor choose a port by itself. Should this one go, a new start takes another."""
    port = _try_bind(socket.SOCK_STREAM, "127.0.0.1", 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unsent:
        try:
            unsent.connect(("127.0.0.1", port))  # sends nothing, but looks for a route
        except OSError as error:
            reason = "127.0.0.1, by which the Serf agent is asked, has no route here"
            raise AppSwitchError("no-loopback", f"{reason}: {error.strerror}", "`ip link set lo up`") from None
    return port


def _write_configuration(settings: AgentSettings, rpc_port: int, auth_key: str) -> Path:
    settings.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = settings.directory / "agent.json"
    path.unlink(missing_ok=True)  # else it would keep its mode
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(configuration(settings, rpc_port, auth_key), file)
    return path


def configuration(settings: AgentSettings, rpc_port: int, auth_key: str) -> dict[str, object]:
    """The agent's configuration file (Serf's cmd/serf/command/agent/config.go)."""
    found: dict[str, object] = {
        "node_name": settings.name,
        "bind": joined(*settings.bind),
        "rpc_addr": joined("127.0.0.1", rpc_port),
        "rpc_auth": auth_key,
        "tags": dict(settings.tags),
        "log_level": "WARN",
        "disable_name_resolution": True,  # no two have one name (core/membership.py); of two, Serf would end both
        **TUNING,
    }
    if settings.key is not None:
        found["encrypt_key"] = settings.key
    return found
