"""What became of the cases, plain and spawned, and where the two differ. Pure.

A case counts when it passes plain. It differs when it then doesn't pass spawned. Each difference needs a reason from
reasons.toml, and each reason there a difference: what has been mended must go from the list.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from attrs import frozen

PASSED, SKIPPED, FAILED, LOST = "passed", "skipped", "failed", "lost"
_WEIGHT = [PASSED, SKIPPED, FAILED]  # a case that says several things (subtests, clean-ups) is worth its worst


@frozen
class Outcome:
    """What became of a case: one of the words above. LOST: it hung, or took its process down. why: its own words."""

    word: str
    why: str = ""


Outcomes = dict[str, Outcome]  # by the case's name


def read_record(text: str) -> Outcomes:
    """What recorder.py wrote. A class or module that can't be set up isn't a case: its cases are just not there."""
    outcomes: Outcomes = {}
    for line in text.splitlines():
        case, word, why = json.loads(line)
        if word == "started":
            outcomes[case] = Outcome(LOST, "hung, or ended its process")
        elif case in outcomes and (outcomes[case].word == LOST or _worse(word, outcomes[case].word)):
            outcomes[case] = Outcome(word, why)
    return outcomes


_ACTIONS = {"pass": PASSED, "skip": SKIPPED, "fail": FAILED}


def read_events(text: str) -> Outcomes:
    """What `go tool test2json` prints (`go doc test2json`). A subtest is a case of its own."""
    outcomes: Outcomes = {}
    said: dict[str, str] = {}
    for event in map(json.loads, text.splitlines()):
        if "Test" not in event:
            continue
        case, action, output = f"{event['Package']}.{event['Test']}", event["Action"], event.get("Output", "")
        if action == "run":
            outcomes[case] = Outcome(LOST, "hung, or ended its process")
        elif action in _ACTIONS:
            outcomes[case] = Outcome(_ACTIONS[action], said.get(case, "")[:300])
        elif action == "output" and not output.lstrip().startswith(("=== ", "--- ")):
            said[case] = " ".join([*said.get(case, "").split(), *output.split()])
    return outcomes


def _worse(word: str, than: str) -> bool:
    return _WEIGHT.index(word) > _WEIGHT.index(than)


def passed(outcomes: Outcomes) -> list[str]:
    """The cases that did."""
    return [case for case, outcome in outcomes.items() if outcome.word == PASSED]


def differences(plain: Outcomes, spawned: Outcomes) -> Outcomes:
    """The cases that pass plain and not spawned, with what became of them spawned."""
    missing = Outcome(LOST, "was not reached")
    found = {case: spawned.get(case, missing) for case in passed(plain)}
    return {case: outcome for case, outcome in found.items() if outcome.word != PASSED}


@frozen
class Reason:
    """Why some cases differ: `what` is the first cell of a row in docs/compatibility.md; `cases` are globs.

    by_chance: the difference is a race's, and may not show.
    """

    what: str
    cases: tuple[str, ...]
    by_chance: bool = False

    def covers(self, case: str) -> bool:
        """Whether `case` is one of its cases."""
        return any(fnmatchcase(case, pattern) for pattern in self.cases)


def read_reasons(path: Path) -> list[Reason]:
    """reasons.toml."""
    tables = tomllib.loads(path.read_text())
    return [
        Reason(what, tuple(cases), by_chance=name == "by-chance")
        for name in ("always", "by-chance")
        for what, cases in tables[name].items()
    ]


def reason_for(case: str, reasons: Iterable[Reason]) -> str | None:
    """Why `case` may differ; None: nobody knows."""
    return next((reason.what for reason in reasons if reason.covers(case)), None)


def stale(reasons: Iterable[Reason], plain: Outcomes, differing: Iterable[str]) -> list[str]:
    """The listed cases that passed plain, and do so spawned by now."""
    differing = set(differing)
    patterns = [pattern for reason in reasons if not reason.by_chance for pattern in reason.cases]
    return [
        pattern
        for pattern in patterns
        if (matching := {case for case in passed(plain) if fnmatchcase(case, pattern)}) and not matching & differing
    ]


@frozen
class Row:
    """One module's results: all its cases, and what differs after the second look."""

    module: str
    plain: Outcomes
    spawned: Outcomes
    differing: Outcomes

    @property
    def counts(self) -> tuple[int, int, int]:
        """Cases, passed plain, and of these passed spawned."""
        good = len(passed(self.plain))
        return len(self.plain), good, good - len(self.differing)


def table(rows: Sequence[Row]) -> str:
    """A line a module, and the sum."""
    lines: list[tuple[object, ...]] = [("module", "cases", "passed plain", "passed spawned", "differ")]
    lines += [(row.module, *row.counts, len(row.differing)) for row in rows]
    cases, plain, spawned = (sum(column) for column in zip(*(row.counts for row in rows), strict=True))
    lines.append(("all", cases, plain, spawned, f"{plain - spawned} ({spawned / max(plain, 1):.2%} pass)"))
    widths = [max(len(str(cell)) for cell in column) for column in zip(*lines, strict=True)]
    return "\n".join(
        f"{line[0]!s:<{widths[0]}}  "
        + "  ".join(f"{cell!s:>{w}}" for cell, w in zip(line[1:4], widths[1:4], strict=True))
        + f"  {line[4]}"
        for line in lines
    )


def listing(rows: Iterable[Row], reasons: Sequence[Reason]) -> str:
    """The differences, by reason."""
    by_reason: dict[str, list[str]] = {}
    for row in rows:
        for case, outcome in row.differing.items():
            what = reason_for(case, reasons) or "NO REASON IS LISTED"
            by_reason.setdefault(what, []).append(f"  {case}: {outcome.word}: {outcome.why}")
    return "\n".join(line for what in sorted(by_reason) for line in [f"{what}:", *sorted(by_reason[what])])
