"""Go's suites are run and survived: a package of our own with a case of each sort, and a real one both ways."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance.golang import ALONE, Go
from tests.conformance.outcomes import FAILED, LOST, PASSED, SKIPPED
from tests.conformance.suite import Module, Way
from tests.harness import PATIENCE

pytestmark = pytest.mark.program("go", "ip")

CASES = """
package ours
import ("net"; "os"; "testing")

func TestPass(t *testing.T) {}
func TestFail(t *testing.T) { t.Error("on purpose") }
func TestSkip(t *testing.T) { t.Skip("no need") }
func TestSubtests(t *testing.T) {
    t.Run("good", func(t *testing.T) {})
    t.Run("bad", func(t *testing.T) { t.Error("no") })
}
func TestCrash(t *testing.T) { os.Exit(3) }
func TestAfterTheCrash(t *testing.T) {}
func TestAlone(t *testing.T) {
    all, _ := net.Interfaces()
    if len(all) != 1 || all[0].Flags&net.FlagUp == 0 {
        t.Error(all)
    }
}
"""


def test_each_outcome(tmp_path: Path) -> None:
    package = tmp_path / "path" / "src" / "ours"
    package.mkdir(parents=True)
    (package / "ours_test.go").write_text(CASES)
    go, plain = Go(tmp_path, tmp_path), Way("plain", ALONE, dict(os.environ))
    module = Module("ours")
    assert go.has(module)
    words = {case: outcome.word for case, outcome in go.run(module, plain).items()}
    assert words == {
        "ours.TestPass": PASSED,
        "ours.TestFail": FAILED,
        "ours.TestSkip": SKIPPED,
        "ours.TestSubtests": FAILED,
        "ours.TestSubtests/good": PASSED,
        "ours.TestSubtests/bad": FAILED,
        "ours.TestCrash": LOST,
        "ours.TestAfterTheCrash": PASSED,
        "ours.TestAlone": PASSED,
    }
    again = go.run(module, plain, "ours.TestSubtests/bad")
    assert list(again) == ["ours.TestSubtests", "ours.TestSubtests/good", "ours.TestSubtests/bad"]
    assert again["ours.TestSubtests/bad"].why == "ours_test.go:10: no"
    assert not go.has(Module("no/such"))


def test_the_session(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.conformance", "--go", "--logs", tmp_path / "logs", "net/textproto", "no/such"],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE * 3,
    )
    assert done.returncode == 0, done
    assert "(100.00% pass)" in done.stdout
    assert "go has no no/such: left out" in done.stderr
    assert (tmp_path / "logs" / "net-textproto.test-spawned.log").exists()
