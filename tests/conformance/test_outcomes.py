"""What the records say, and what counts as a difference."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conformance.outcomes import (
    FAILED,
    LOST,
    PASSED,
    SKIPPED,
    Outcome,
    Reason,
    Row,
    differences,
    listing,
    read_events,
    read_reasons,
    read_record,
    reason_for,
    stale,
    table,
)

ROOT = Path(__file__).parents[2]
GOOD, BAD, LEFT_OUT = Outcome(PASSED), Outcome(FAILED, "OSError: no"), Outcome(SKIPPED, "no IPv6")


def record(*lines: tuple[str, str, str]) -> str:
    return "".join(json.dumps(line) + "\n" for line in lines)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), LOST),
        (("passed",), PASSED),
        (("skipped",), SKIPPED),
        (("skipped", "passed"), SKIPPED),
        (("failed", "skipped"), FAILED),
        (("passed", "failed"), FAILED),
    ],
)
def test_a_case_is_worth_the_worst_of_what_it_says(words: tuple[str, ...], expected: str) -> None:
    text = record(("m.C.t", "started", ""), *(("m.C.t", word, "") for word in words))
    assert read_record(text)["m.C.t"].word == expected


def test_a_class_that_cannot_be_set_up_is_no_case() -> None:
    assert read_record(record(("setUpClass (m.C)", "failed", "OSError"))) == {}


def test_what_go_tells() -> None:
    told = [
        ("run", ""),
        ("output", "=== RUN   T\n"),
        ("output", "    t_test.go:3: no\n"),
        ("output", "--- FAIL: T (0.0s)\n"),
    ]
    events = [{"Action": action, "Package": "net", "Test": "T", "Output": output} for action, output in told]
    events += [{"Action": "fail", "Package": "net", "Test": "T"}, {"Action": "fail", "Package": "net"}]
    events += [{"Action": action, "Package": "net", "Test": "T/sub"} for action in ("run", "skip")]
    events += [{"Action": "run", "Package": "net", "Test": "Hangs"}]
    found = read_events("\n".join(map(json.dumps, events)))
    assert found["net.T"] == Outcome(FAILED, "t_test.go:3: no")
    assert found["net.T/sub"].word == SKIPPED
    assert found["net.Hangs"].word == LOST
    assert len(found) == 3


def test_only_what_passes_plain_can_differ() -> None:
    plain = {"a": GOOD, "b": GOOD, "c": GOOD, "d": GOOD, "e": BAD, "f": LEFT_OUT}
    spawned = {"a": GOOD, "b": BAD, "c": LEFT_OUT, "e": BAD, "f": GOOD}
    found = differences(plain, spawned)
    assert list(found) == ["b", "c", "d"]
    assert [found[case].word for case in found] == [FAILED, SKIPPED, LOST]


def test_reasons_are_found_by_glob() -> None:
    reasons = [Reason("half-close", ("m.*.testClose", "m.D.*"))]
    assert reason_for("m.C.testClose", reasons) == "half-close"
    assert reason_for("m.D.anything", reasons) == "half-close"
    assert reason_for("m.C.testOpen", reasons) is None


def test_a_reason_is_stale_when_its_cases_pass_both_ways() -> None:
    reasons = [Reason("x", ("differs", "mended", "of-another-version", "fails-plain"))]
    plain = {"differs": GOOD, "mended": GOOD, "fails-plain": BAD}
    assert stale(reasons, plain, ["differs"]) == ["mended"]


def test_a_race_s_reason_is_not_stale_when_it_does_not_show() -> None:
    assert stale([Reason("x", ("races",), by_chance=True)], {"races": GOOD}, []) == []


def test_what_is_printed() -> None:
    rows = [
        Row("test_a", {"a.1": GOOD, "a.2": GOOD, "a.3": BAD}, {"a.1": GOOD, "a.2": BAD}, {"a.2": BAD}),
        Row("test_b", {"b.1": GOOD}, {"b.1": GOOD}, {}),
    ]
    lines = [line.split() for line in table(rows).splitlines()]
    assert lines[1] == ["test_a", "3", "2", "1", "1"]
    assert lines[3] == ["all", "4", "3", "2", "1", "(66.67%", "pass)"]
    assert listing(rows, [Reason("a row", ("a.*",))]) == "a row:\n  a.2: failed: OSError: no"
    assert listing(rows, []) == "NO REASON IS LISTED:\n  a.2: failed: OSError: no"


def test_each_reason_is_a_row_of_the_compatibility_page() -> None:
    page = (ROOT / "docs" / "compatibility.md").read_text()
    for reason in read_reasons(ROOT / "tests" / "conformance" / "reasons.toml"):
        assert f"| {reason.what} |" in page
