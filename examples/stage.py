"""What the examples share: a stage, where each command is shown as it runs, and which is empty in the end.

An example is a function that gets a Stage and calls `play`. It tells what comes, runs shell commands at a Place (this
machine, or one of several hosts), and says what it expects to be seen: where that isn't so, the example fails. All of
it is in one directory, and goes with it: at the end, on Ctrl-C and on failure.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Collection
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from tests.harness import Switch, eventually, stop
from tests.hosts import Host, Namespace, Network

HOSTS = "its hosts are network namespaces that a bridge joins"
"""Why an example needs root."""
PATIENCE = 60.0  # seconds that any command may take
PACKAGES = {"psql": "postgresql-client", "redis-cli": "redis-tools", "ip": "iproute2"}  # elsewhere it is as the program
NGINX = """
daemon off; master_process off; pid nginx.pid; error_log stderr;
events {{}}
http {{
  access_log off; client_body_temp_path 1; proxy_temp_path 2; fastcgi_temp_path 3; uwsgi_temp_path 4; scgi_temp_path 5;
  server {{ listen {listen}; location / {{ {does} }} }}
}}
"""


class Trouble(Exception):  # noqa: N818 - what it is
    """Something wasn't as told."""


class Program:
    """A command that goes on in the background."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self.log = log
        """What it says, where nobody else reads that."""

    def wait_until_it_listens(self, port: int) -> None:
        """At that TCP port of IPv4; for what isn't under AppSwitch."""
        sockets = Path(f"/proc/{self.process.pid}/net/tcp")
        eventually(lambda: f":{port:04X} 00000000:0000 0A" in sockets.read_text())

    def end(self, number: int = signal.SIGTERM) -> None:
        """Ends it by that signal; returns once it has ended."""
        os.killpg(self.process.pid, number)
        self.process.wait(PATIENCE)

    def interrupt(self) -> str:
        """Has it end as by Ctrl-C; what it has said, which is shown."""
        self.end(signal.SIGINT)
        said = self.log.read_text()
        show(said)
        return said


class Place:
    """Where commands are run: `switch` is the trap handler there, `prefix` what gets a command there."""

    def __init__(self, stage: Stage, prefix: list[str], switch: Switch | None, name: str = "") -> None:
        self._stage = stage
        self._prefix = prefix
        self._switch = switch
        self._prompt = f"{name}$"
        self.environment = {**os.environ, **(switch.environment if switch else {})}
        self.environment["PATH"] = stage.path
        self.environment.pop("LD_PRELOAD", None)

    def run(self, line: str, status: int | None = 0, quiet: bool = False) -> str:
        """A line for the shell, to its end; what it prints, errors too. status: how it has to exit; None: anyhow."""
        if not quiet:
            print(f"  {self._prompt} {line}", flush=True)
        done = subprocess.run(
            self._shell(line), cwd=self._stage.home, env=self.environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=PATIENCE,
        )  # fmt: skip
        if not quiet:
            show(done.stdout)
        expect(status in (None, done.returncode), f"`{line}` exits with {status}, not {done.returncode}")
        return done.stdout

    def start(self, line: str, talks: bool = False) -> Program:
        """A line for the shell that goes on. talks: its stdin and stdout are ours."""
        print(f"  {self._prompt} {line} &", flush=True)
        return self._stage.start(self._shell(line), self.environment, talks)

    def serve(self, *flags: str) -> None:
        """The trap handler; it serves when this returns."""
        assert self._switch is not None
        named = ["--node", self._switch.name, "--bind", self._switch.address] if isinstance(self._switch, Host) else []
        line = shlex.join(["appswitch", "serve", *named, *flags]).replace(f"{self._stage.home}/", "")
        print(f"  {self._prompt} {line} &", flush=True)
        try:
            self._switch.serve(*flags)
        except AssertionError as error:
            raise Trouble(f"the trap handler starts, not: {error}") from None

    def wait_for(self, *services: str, instances: int = 1) -> None:
        """Until each NAME:PORT is served, so many times."""
        assert self._switch is not None
        self._switch.wait_for(*services)
        for each in services:
            self.wait_for_instances(each, instances)

    def wait_for_instances(self, service: str, count: int) -> None:
        """Until NAME:PORT is served by so many."""
        eventually(lambda: sum(f"{row['name']}:{row['port']}" == service for row in self.rows("services")) == count)

    def wait_for_nodes(self, count: int) -> None:
        """Until so many hosts are there, and all have the same tables."""
        assert self._switch is not None
        eventually(lambda: sum(row["state"] == "alive" for row in self.rows("nodes")) == count)
        self._switch.command("nodes", "--wait")

    def wait_for_connections(self, name: str, count: int) -> None:
        """Until so many are established to the apps of that name."""
        eventually(lambda: sum(row["server_name"] == name for row in self.rows("connections")) >= count)

    def rows(self, *arguments: str) -> list[dict[str, Any]]:
        """What `appswitch ARGUMENTS --json` prints; not shown."""
        assert self._switch is not None
        return self._switch.rows(*arguments)

    def _shell(self, line: str) -> list[str]:
        return [*self._prefix, "sh", "-c", line]


class Stage:
    """home: the directory in which all commands run."""

    def __init__(self, home: Path, stack: ExitStack) -> None:
        self.home = home
        self.path = search_path()
        self._stack = stack
        self._logs: list[Path] = []

    def here(self) -> Place:
        """The machine itself."""
        switch = Switch(self.home)
        self._stack.callback(switch.close)
        return Place(self, [], switch)

    def hosts(self, *names: str) -> tuple[Network, list[Place]]:
        """Network namespaces that a bridge joins, each with an address: 10.99.0.1 and so on. Root only."""
        network = Network(self.home, self._stack)
        hosts = [network.add(name) for name in names]
        self._stack.callback(network.end)
        return network, [Place(self, host.prefix, host, host.name) for host in hosts]

    def namespace(self, name: str, namespace: Namespace) -> Place:
        """A place without a trap handler."""
        return Place(self, namespace.enter, None, name)

    def nginx(self, name: str, says: str = "", passes_to: str = "", listen: str = "80") -> str:
        """The command line of a web server, which says that, or passes on what it is asked. listen: in nginx' words."""
        home = self.home / f"{name}.d"
        home.mkdir()
        home.chmod(0o777)
        does = f"proxy_pass {passes_to};" if passes_to else f'return 200 "{says}\\n";'
        (home / "nginx.conf").write_text(NGINX.format(listen=listen, does=does))
        return f"nginx -e stderr -p {home.name} -c nginx.conf"

    def bring(self, file: Path) -> None:
        """A file of the example, to where its commands run."""
        shutil.copy(file, self.home)

    def start(self, command: list[str], environment: dict[str, str], talks: bool) -> Program:
        """A command that is ended with the stage."""
        log = self.home / f"program-{len(self._logs)}.log"
        self._logs.append(log)
        with log.open("w") as output:
            process = subprocess.Popen(
                command, cwd=self.home, env=environment, text=True, start_new_session=True, stderr=output,
                stdin=subprocess.PIPE if talks else subprocess.DEVNULL, stdout=subprocess.PIPE if talks else output,
            )  # fmt: skip
        self._stack.callback(_end, process)
        return Program(process, log)

    def said(self) -> str:
        """What programs and trap handlers have said, for those who look for an error."""
        logs = [*self.home.glob("*.log"), *self.home.glob("*/*.log")]
        return "".join(f"--- {each.name}\n{each.read_text()[-2000:]}" for each in logs)


def search_path() -> str:
    """Where programs are looked for: our own `appswitch` first, and in what is root's, too."""
    return f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin"


def tell(text: str) -> None:
    """Prints a paragraph."""
    print(f"\n{textwrap.dedent(text).strip()}\n", flush=True)


def show(text: str) -> None:
    """Prints what a command has said."""
    print("".join(f"  {line}\n" for line in text.splitlines()), end="", flush=True)


def expect(true: bool, text: str) -> None:
    """Ends the example when what it told isn't so."""
    if not true:
        raise Trouble(text)


def _end(process: subprocess.Popen[str]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe:
            pipe.close()
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(5)
    stop(process)


def play(scene: Callable[[Stage], None], needs: Collection[str] = (), root: str = "") -> int:
    """Plays an example; its exit status: 0 when everything was seen as told.

    needs: programs; root: why only root may.
    """
    missing = [each for each in needs if shutil.which(each, path=search_path()) is None]
    if missing:
        packages = " ".join(PACKAGES.get(each, each) for each in missing)
        print(f"This example needs {', '.join(missing)}.\nhint: on Debian, apt-get install {packages}", file=sys.stderr)
        return 1
    if root and os.geteuid() != 0:
        print(f"This example needs root: {root}.\nhint: sudo {shlex.join(sys.orig_argv)}", file=sys.stderr)
        return 1
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))
    try:
        with tempfile.TemporaryDirectory(prefix="appswitch-") as home, ExitStack() as stack:
            Path(home).chmod(0o755)
            stage = Stage(Path(home), stack)
            try:
                scene(stage)
            except (Trouble, AssertionError, OSError, subprocess.SubprocessError) as trouble:
                print(f"\nThe example failed; this should be so, and isn't: {trouble}", file=sys.stderr)
                print(stage.said(), file=sys.stderr)
                return 1
            finally:  # a second Ctrl-C shouldn't keep us from cleaning up
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                    signal.signal(number, signal.SIG_IGN)
    except KeyboardInterrupt:
        print("\nInterrupted. Everything is stopped and removed.", file=sys.stderr)
        return 130
    print("\nThat was it. Everything is stopped and removed.", flush=True)
    return 0
