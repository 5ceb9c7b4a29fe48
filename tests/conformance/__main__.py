"""`python -m tests.conformance`: CPython's own network tests, plain and under `appswitch spawn`, and where they differ.

With --go: Go's own. Fails when a difference has no reason in reasons.toml, when a reason there has no difference, and
when fewer than 99 % (Go: 97 %) of the cases that pass plain pass spawned. A difference counts once it shows again with
the case run alone, both ways. Nothing leaves this machine: CPython's network resource is on only for test_socketserver,
which stays on loopback; Go's tests run plain where there is nothing but loopback.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from tests.conformance import cpython, golang, outcomes
from tests.conformance.suite import Module, Suite, Way
from tests.harness import running_switch

SPAWN = ("spawn", "--name", "t", "--ip", "10.9.9.9", "--")
NO_NAME_SERVER = ("--dns-upstream", "127.0.0.1:9")
WANTED = {False: 0.99, True: 0.97}  # of the cases that pass plain; CPython's, Go's
MOST_AGAIN = 40  # cases of a module that are run again alone; where more differ, it isn't by chance


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    default = sys._base_executable  # type: ignore[attr-defined]  # a virtual environment's tests of itself would fail
    parser.add_argument("--python", default=default, metavar="PATH", help=f"whose tests (default: {default})")
    parser.add_argument("--go", action="store_true", help="Go's own tests instead, of the `go` that is installed")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="keep what the runs say")
    others = "only these, others of `python -m test` or other packages of Go's included"
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=others)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    known = golang.MODULES if arguments.go else cpython.MODULES
    modules = [module for module in known if not arguments.modules or module.name in arguments.modules]
    modules += [Module(name) for name in arguments.modules if name not in {module.name for module in modules}]
    with tempfile.TemporaryDirectory(prefix="as-conformance-") as place:
        logs = (arguments.logs or Path(place, "logs")).resolve()
        logs.mkdir(parents=True, exist_ok=True)
        suite: Suite = golang.Go(Path(place), logs) if arguments.go else cpython.CPython(arguments.python, logs)
        there = [module for module in modules if suite.has(module)]
        for module in modules:
            if module not in there:
                whose = "go has no " if arguments.go else f"{arguments.python} has no test."
                print(f"{whose}{module.name}: left out", file=sys.stderr)
        if not there:
            package = "golang-go" if arguments.go else "libpython3-testsuite"
            sys.exit(f"no tests. hint: on Debian the package {package} has them")
        rows = measure(suite, there, *((golang.ALONE, NO_NAME_SERVER) if arguments.go else ((), ())))
    sys.exit(report(rows, WANTED[arguments.go]))


def measure(
    suite: Suite, modules: list[Module], plainly: tuple[str, ...], flags: tuple[str, ...]
) -> list[outcomes.Row]:
    """Runs everything, the two ways of a module one after the other.

    plainly: stands before what runs plain. flags: of the trap handler.
    """
    rows = []
    with running_switch(*flags) as switch:
        plain = Way("plain", plainly, switch.environment)
        spawned = Way("spawned", (*switch.appswitch, *SPAWN), switch.environment)
        for module in modules:
            print(f"{module.name} ...", file=sys.stderr, flush=True)
            before, after = (suite.run(module, way) for way in (plain, spawned))
            differing = outcomes.differences(before, after)
            if len(differing) <= MOST_AGAIN:
                differing = look_again(suite, module, (plain, spawned), differing)
            rows.append(outcomes.Row(module.name, before, after, differing))
    return rows


def look_again(suite: Suite, module: Module, ways: tuple[Way, Way], differing: outcomes.Outcomes) -> outcomes.Outcomes:
    """Those that differ again, run alone; the rest is told and forgotten."""
    still = {}
    for case, outcome in differing.items():
        again = outcomes.differences(*(suite.run(module, way, case) for way in ways))
        if not again:
            print(f"  not when run again alone: {case}: {outcome.why}", file=sys.stderr)
        still.update(again)
    return still


def report(rows: list[outcomes.Row], wanted: float) -> int:
    """Prints it all; the exit status. wanted: which share of what passes plain is to pass spawned."""
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
    if sum(row.counts[2] for row in rows) < wanted * good:
        print(f"fewer than {wanted:.0%} pass spawned", file=sys.stderr)
        status = 1
    return status


if __name__ == "__main__":
    main()
