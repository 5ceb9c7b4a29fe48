"""CPython's own tests. A case that hangs or crashes takes its interpreter with it; the rest goes on in another."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from attrs import frozen

from tests.conformance.outcomes import LOST, Outcomes, read_record
from tests.conformance.suite import CASE_LIMIT, MODULE_LIMIT, MOST_RESTARTS, Module, Way, survive

RECORDER = Path(__file__).with_name("recorder.py")
MODULES = [
    Module("test_socket"),
    Module("test_asyncio"),
    Module("test_socketserver", ("-u", "network")),
    Module("test_selectors"),
    Module("test_epoll"),
    Module("test_httpservers"),
    Module("test_httplib"),
    Module("test_urllib2_localnet"),
    Module("test_smtplib"),
    Module("test_ftplib"),
    Module("test_poplib"),
    Module("test_imaplib"),
    Module("test_telnetlib"),
    Module("test_xmlrpc"),
    Module("test_ssl"),
    Module("test_asyncore"),
    Module("test_asynchat"),
    Module("test_wsgiref"),
    Module("test_logging"),
    Module("test_os"),
    Module("test_select"),
    Module("test_poll"),
]


@frozen
class CPython:
    """The suite of the interpreter `python`; what the runs say is kept in `logs`."""

    python: str
    logs: Path

    def has(self, module: Module) -> bool:
        """Whether this version has it: some have gone since 3.11."""
        find = f"import importlib.util as util, sys; sys.exit(util.find_spec('test.{module.name}') is None)"
        command = [self.python, "-c", find]
        silent = subprocess.DEVNULL
        return subprocess.run(command, check=False, stdin=silent, stderr=silent).returncode == 0

    def run(self, module: Module, way: Way, only: str = "") -> Outcomes:
        """Runs a module's cases, or `only` one."""
        with tempfile.TemporaryDirectory(prefix="as-") as directory:
            home = Path(directory)
            record, ignored = home / "record", home / "ignored"
            record.touch()
            outcomes: Outcomes = {}
            for _ in range(MOST_RESTARTS):
                # A VSOCK socket hangs on a virtual machine, with us and without.
                ignored.write_text("\n".join(["*VSOCK*", *outcomes]))
                arguments = [*module.options, "--timeout", str(CASE_LIMIT), *(["--match", only] if only else [])]
                arguments += ["--ignorefile", str(ignored)]  # the last of the two decides
                # The flags are those that `python -m test` gives itself.
                command = [*way.prefix, self.python, "-u", "-W", "default", "-bb", "-E", str(RECORDER), str(record)]
                command += ["test.regrtest", *arguments, module.name]
                log = self.logs / f"{module.name}-{way.name}.log"
                in_time = survive(command, {**way.environment, "TMPDIR": directory}, home, log, log, MODULE_LIMIT)
                before, outcomes = outcomes, read_record(record.read_text())
                lost = any(outcome.word == LOST for case, outcome in outcomes.items() if case not in before)
                if not in_time or not lost:
                    break
            return outcomes
