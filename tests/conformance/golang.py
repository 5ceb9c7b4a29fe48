"""Go's own tests of its packages, in short mode: `go test -c` makes a program of them, which tells each case.

A case's name is the module's, a dot, and what Go calls it: `net.TestDialTimeout`, of a subtest `net.TestTCPServer/tcp`.
One that hangs or crashes ends the program; those that it has lost are then run one by one. A module `PACKAGE+cgo` is
the package built with cgo: a dynamic program that resolves names by libc.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path

from attrs import frozen

from tests.conformance.outcomes import LOST, Outcome, Outcomes, read_events
from tests.conformance.suite import CASE_LIMIT, MODULE_LIMIT, MOST_RESTARTS, Module, Way, survive

MODULES = [Module("net"), Module("net/http"), Module("net+cgo"), Module("net/http+cgo")]
AS_USER = ("--map-root-user",) if os.geteuid() else ()
ALONE = ("unshare", "--net", *AS_USER, "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
"""What stands before a command that is to reach nothing outside."""


@frozen
class Go:
    """The suite of the `go` that is installed; `place` is for what is built, `logs` keeps what the runs say."""

    place: Path
    logs: Path

    def has(self, module: Module) -> bool:
        """Whether its sources are there."""
        try:
            return self._source(module).is_dir()
        except (OSError, subprocess.CalledProcessError):
            return False

    def run(self, module: Module, way: Way, only: str = "") -> Outcomes:
        """Runs a module's cases, or `only` one; of a subtest: the case that it belongs to."""
        program = self._built(module)
        prefix = f"{module.name}."
        if only:
            return self._run(module, program, way, only.removeprefix(prefix).partition("/")[0], CASE_LIMIT)
        outcomes, lost = self._run(module, program, way, "", MODULE_LIMIT), 0
        for name in self._cases(module, program):
            if lost < MOST_RESTARTS and _is_lost(outcomes.get(prefix + name)):
                outcomes.update(self._run(module, program, way, name, CASE_LIMIT))
                lost += _is_lost(outcomes.get(prefix + name))
        return outcomes

    def _run(self, module: Module, program: Path, way: Way, name: str, limit: float) -> Outcomes:
        log = self.logs / f"{program.name}-{way.name}.log"
        with tempfile.TemporaryDirectory(prefix="as-") as directory:
            said = Path(directory) / "said"
            command = [*way.prefix, str(program), "-test.v", "-test.short", f"-test.timeout={limit:.0f}s"]
            command += [f"-test.run=^{name}$"] if name else []
            source = self._source(module)
            environment = {**way.environment, **self._environment(module), "TMPDIR": directory, "PWD": str(source)}
            # A program that its own timer doesn't end has a little longer.
            survive(command, environment, source, said, log, limit + 10)
            with log.open("a") as whole:
                whole.write(said.read_text(errors="replace"))
            return read_events(self._go(module, "tool", "test2json", "-p", module.name, stdin=said))

    def _cases(self, module: Module, program: Path) -> list[str]:
        command = [str(program), "-test.list", "^(Test|Example|Fuzz)"]
        done = subprocess.run(command, cwd=self._source(module), capture_output=True, text=True, check=True)
        return re.findall(r"^(?:Test|Example|Fuzz)\w*$", done.stdout, re.MULTILINE)

    def _built(self, module: Module) -> Path:
        program = self.place / f"{module.name.replace('/', '-')}.test"
        if not program.exists():
            self._go(module, "test", "-c", "-o", str(program), _package(module))
        return program

    def _source(self, module: Module) -> Path:
        return Path(self._go(module, "list", "-f", "{{.Dir}}", _package(module)).strip())

    def _go(self, module: Module, *arguments: str, stdin: Path = Path(os.devnull)) -> str:
        """What `go ARGUMENTS` prints."""
        environment = {**os.environ, **self._environment(module)}
        log = self.logs / "go.log"
        with stdin.open() as source, log.open("a") as errors:
            return subprocess.run(
                ["go", *arguments],
                env=environment,
                cwd=self.place,
                stdin=source,
                stdout=subprocess.PIPE,
                stderr=errors,
                check=True,
                text=True,
                errors="replace",
            ).stdout

    def _environment(self, module: Module) -> dict[str, str]:
        """No module is fetched, and nobody's cache is filled."""
        return {
            "CGO_ENABLED": str(int(module.name.endswith("+cgo"))),
            "GO111MODULE": "off",
            "GOCACHE": str(self.place / "cache"),
            "GOFLAGS": "",
            "GOPATH": str(self.place / "path"),
            "GOPROXY": "off",
            "GOTOOLCHAIN": "local",
        }


def _package(module: Module) -> str:
    return module.name.removesuffix("+cgo")


def _is_lost(outcome: Outcome | None) -> bool:
    return outcome is None or outcome.word == LOST
