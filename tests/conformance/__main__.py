"""`python -m tests.conformance`: CPython's own network tests, plain and under `appswitch spawn`, and where they differ.

Fails when a difference has no reason in reasons.toml, when a reason there has no difference, and when fewer than 99 %
of the cases that pass plain pass spawned. A difference counts once it shows again with the case run alone, both ways.
Nothing leaves this machine: the network resource is on only for test_socketserver, which stays on loopback.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from tests.conformance import outcomes, suite
from tests.conformance.suite import Module
from tests.harness import running_switch

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
SPAWN = ("spawn", "--name", "t", "--ip", "10.9.9.9", "--")
WANTED = 0.99  # of the cases that pass plain
MOST_AGAIN = 40  # cases of a module that are run again alone; where more differ, it isn't by chance


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    default = sys._base_executable  # type: ignore[attr-defined]  # a virtual environment's tests of itself would fail
    parser.add_argument("--python", default=default, metavar="PATH", help=f"whose tests (default: {default})")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="keep what the runs say")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="only these, others of `python -m test` included")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    modules = [module for module in MODULES if not arguments.modules or module.name in arguments.modules]
    modules += [Module(name) for name in arguments.modules if name not in {module.name for module in modules}]
    with tempfile.TemporaryDirectory(prefix="as-conformance-") as logs:
        tests = suite.Suite(arguments.python, arguments.logs or Path(logs))
        tests.logs.mkdir(parents=True, exist_ok=True)
        there = [module for module in modules if tests.has(module)]
        for module in modules:
            if module not in there:
                print(f"{arguments.python} has no test.{module.name}: left out", file=sys.stderr)
        if not there:
            sys.exit("no tests. hint: on Debian the package libpython3-testsuite has them")
        rows = measure(tests, there)
    sys.exit(report(rows))


def measure(tests: suite.Suite, modules: list[Module]) -> list[outcomes.Row]:
    """Runs everything, the two ways of a module one after the other."""
    rows = []
    with running_switch() as switch:
        plain = suite.Way("plain", (), switch.environment)
        spawned = suite.Way("spawned", (*switch.appswitch, *SPAWN), switch.environment)
        for module in modules:
            print(f"{module.name} ...", file=sys.stderr, flush=True)
            before, after = (tests.run(module, way) for way in (plain, spawned))
            differing = outcomes.differences(before, after)
            if len(differing) <= MOST_AGAIN:
                differing = look_again(tests, module, (plain, spawned), differing)
            rows.append(outcomes.Row(module.name, before, after, differing))
    return rows


def look_again(
    tests: suite.Suite, module: Module, ways: tuple[suite.Way, suite.Way], differing: outcomes.Outcomes
) -> outcomes.Outcomes:
    """Those that differ again, run alone; the rest is told and forgotten."""
    still = {}
    for case, outcome in differing.items():
        again = outcomes.differences(*(tests.run(module, way, case) for way in ways))
        if not again:
            print(f"  not when run again alone: {case}: {outcome.why}", file=sys.stderr)
        still.update(again)
    return still


def report(rows: list[outcomes.Row]) -> int:
    """Prints it all; the exit status."""
    reasons = outcomes.read_reasons(Path(__file__).with_name("reasons.toml"))
    print(outcomes.table(rows))
    print(outcomes.listing(rows, reasons))
    status = 0
    for row in rows:
        for case in row.differing:
            if outcomes.reason_for(case, reasons) is None:
                print(f"no reason is listed for {case}", file=sys.stderr)
                status = 1
        for pattern in outcomes.stale(reasons, row.plain, row.differing):
            print(f"in reasons.toml, but passes spawned: {pattern}", file=sys.stderr)
            status = 1
    good = sum(row.counts[1] for row in rows)
    if sum(row.counts[2] for row in rows) < WANTED * good:
        print(f"fewer than {WANTED:.0%} pass spawned", file=sys.stderr)
        status = 1
    return status


if __name__ == "__main__":
    main()
