"""A trap handler of the tests' own, and programs under `appswitch spawn`."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from appswitch.host.control_client import ControlClient
from tests.zygote import Copy

PATIENCE = 30.0  # seconds that anything may take before a test fails


def python_for(user: int | None) -> tuple[str, dict[str, str]]:
    """An interpreter that `user` may run (the tests' own may be in root's home), and the environment for it."""
    environment = dict(os.environ)
    for name in ("LD_PRELOAD", "APPSWITCH_SOCKET", "APPSWITCH_APP", "XDG_RUNTIME_DIR"):
        environment.pop(name, None)
    if user is None or _may_reach(Path(sys.executable).resolve()):
        return sys.executable, environment
    other = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    places = [str(Path(__file__).parent.parent), sysconfig.get_path("purelib")]
    return other, {**environment, "PYTHONPATH": ":".join(places)}


def _may_reach(path: Path) -> bool:
    return all(parent.stat().st_mode & 0o001 for parent in path.parents)


class Switch:
    """A running trap handler and what was started under it. copies: whether commands are (tests/zygote.py)."""

    copies = False

    def __init__(self, directory: Path, user: int | None = None) -> None:
        self.directory = directory
        self.trap = directory / "trap.sock"
        self.log = directory / "serve.log"
        self.user = user
        python, environment = python_for(user)
        self.appswitch = [python, "-m", "appswitch"]
        self.environment = {**environment, "APPSWITCH_SOCKET": str(self.trap)}
        self.prefix: list[str] = []
        """What runs a command where this trap handler is."""
        self.network: int | None = None
        """A process in the network namespace that `prefix` enters."""
        self._started: list[subprocess.Popen[str]] = []

    def serve(self, *flags: str) -> subprocess.Popen[str]:
        """Starts the trap handler; returns once it serves."""
        ready, write_end = os.pipe()
        with self.log.open("a") as output:
            server = self._popen(
                [
                    *self.appswitch,
                    "serve",
                    "--node",
                    "n1",
                    "--ready-fd",
                    str(write_end),
                    *flags,
                ],  # the last --node counts
                stdout=output,
                stderr=output,
                pass_fds=[write_end],
            )
        self.server = server
        os.close(write_end)
        said = os.read(ready, 16)
        os.close(ready)
        assert said, self.log.read_text()
        return server

    def kill_server(self) -> None:
        """Kills the trap handler: kill -9."""
        self.server.kill()
        self.server.wait()

    def spawn(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """`appswitch spawn ARGUMENTS` in the background; its output is in `process.log` unless redirected."""
        log = self.directory / f"app-{len(self._started)}.log"
        with log.open("w") as output:
            options = {"stdout": output, "stderr": subprocess.STDOUT, **options}
            process = self._popen([*self.appswitch, "spawn", *arguments], **options)
        process.log = log  # type: ignore[attr-defined]
        return process

    def run(self, *arguments: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        """`appswitch spawn ARGUMENTS`, to its end."""
        return self.command("spawn", *arguments, check=check, **options)

    def command(self, *arguments: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        """`appswitch ARGUMENTS`, to its end. With `check` a failure shows everything that was said."""
        options = {"env": self.environment, "capture_output": True, "text": True, **options}
        patience, said = options.pop("timeout", PATIENCE), options.pop("input", None)
        if options.pop("capture_output"):
            options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        options.setdefault("stdin", subprocess.DEVNULL if said is None else subprocess.PIPE)
        with self._start([*self.appswitch, *arguments], options) as process:
            try:
                output = process.communicate(said, patience)
            except BaseException:
                process.kill()
                raise
        done = subprocess.CompletedProcess(process.args, process.returncode, *output)
        assert not check or done.returncode == 0, f"{done}\n{self.logs()}"
        return done

    def rows(self, *arguments: str) -> list[dict[str, Any]]:
        """What `appswitch ARGUMENTS --json` prints."""
        rows: list[dict[str, Any]] = json.loads(self.command(*arguments, "--json").stdout)
        return rows

    def events(self, *flags: str) -> list[dict[str, Any]]:
        """What `appswitch observe --json FLAGS` prints."""
        return [json.loads(line) for line in self.command("observe", "--json", *flags).stdout.splitlines()]

    def wait_for(self, *services: str) -> None:
        """Until every NAME:PORT is served."""
        client = ControlClient(self.trap)
        client.set_timeout(PATIENCE)
        try:
            client.call("wait-for", {"services": list(services)})
        except TimeoutError:
            raise AssertionError(f"{services} are not served\n{self.logs()}") from None
        finally:
            client.close()

    def logs(self) -> str:
        """Everything that was said."""
        return "\n".join(f"--- {path.name}\n{path.read_text()[-4000:]}" for path in self.directory.glob("*.log"))

    def end_apps(self) -> None:
        """Ends what was started, but for the trap handler."""
        for process in reversed(self._started):
            if process is not self.server:
                _end(process)
        self._started = [self.server]

    def close(self) -> None:
        """Ends what was started, the trap handler last."""
        for process in reversed(self._started):
            _end(process)

    def _as_user(self) -> dict[str, Any]:
        return {} if self.user is None else {"user": self.user, "group": self.user, "extra_groups": []}

    def _popen(self, command: list[str], **options: Any) -> subprocess.Popen[str]:
        options = {"env": self.environment, "stdin": subprocess.DEVNULL, "text": True, **options}
        process = self._start(command, {**options, "start_new_session": True})
        self._started.append(process)
        return process

    def _start(self, command: list[str], options: dict[str, Any]) -> subprocess.Popen[str]:
        is_usual = self.user is None and (not self.prefix or self.network is not None)
        if self.copies and is_usual and Copy.can_be(command, options):
            return Copy(command, self.network, **options)
        return subprocess.Popen([*self.prefix, *command], **self._as_user(), **options)


class Talker:
    """A program under spawn that answers a line with a line."""

    def __init__(self, switch: Switch, *arguments: str) -> None:
        self.process = switch.spawn(
            *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def ask(self, line: str) -> str:
        self.say(line)
        return self.hear()

    def say(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        assert self.process.stdout
        return str(self.process.stdout.readline()).rstrip("\n")


def stop(process: subprocess.Popen[str]) -> None:
    """Ends a process and its session's group."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _end(process: subprocess.Popen[str]) -> None:
    """Stops a process, of which nothing is wanted any more."""
    stop(process)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


@contextmanager
def running_switch(*flags: str, user: int | None = None) -> Iterator[Switch]:
    """A trap handler with `flags`, run by the user id `user`."""
    with idle_switch(user) as switch:
        switch.serve(*flags)
        yield switch


@contextmanager
def idle_switch(user: int | None = None) -> Iterator[Switch]:
    """A trap handler that doesn't run yet, in a directory that any user may read."""
    with tempfile.TemporaryDirectory(prefix="as-") as directory:
        path = Path(directory)
        path.chmod(0o755)
        if user is not None:
            os.chown(path, user, -1)
        switch = Switch(path, user)
        try:
            yield switch
        finally:
            switch.close()


def eventually(condition: Any, within: float = PATIENCE) -> None:
    """Waits for something that nothing announces (a process's end as others see it). Fails after `within` seconds."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def reload(switch: Switch, file: Path, text: str, says: str) -> None:
    """Puts `text` into the policy file; returns once the trap handler has said what it thinks of it."""
    before = switch.log.read_text().count(says)
    file.write_text(text)
    switch.server.send_signal(signal.SIGHUP)
    eventually(lambda: switch.log.read_text().count(says) > before)


def has_ended(pid: int) -> bool:
    """Whether the process has, be it that nobody has fetched its status (not every machine's init does)."""
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def free_port() -> int:
    """One that nobody has, TCP or UDP; nor does the kernel give it away meanwhile (ip_local_port_range in ip(7))."""
    while True:
        port = 20000 + secrets.randbelow(12768)
        with ExitStack() as stack, suppress(OSError):
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                made = stack.enter_context(socket.socket(socket.AF_INET6, kind))
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                made.bind(("::", port))
            return port


def open_descriptors() -> int:
    """How many this process has."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())
