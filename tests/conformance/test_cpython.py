"""Suites are run and survived: one of our own with a case of each sort, and a real module both ways."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance.cpython import CPython
from tests.conformance.outcomes import FAILED, LOST, PASSED, SKIPPED
from tests.conformance.suite import Module, Way

PYTHON = sys._base_executable  # type: ignore[attr-defined]
PLAIN = Way("plain", (), dict(os.environ))
CASES = """
import os, subprocess, unittest
from pathlib import Path

class Cases(unittest.TestCase):
    def test_a_pass(self):
        pass
    def test_b_fail(self):
        self.fail("on purpose")
    def test_c_skip(self):
        self.skipTest("no need")
    def test_d_crash(self):
        os._exit(3)
    @unittest.expectedFailure
    def test_e_expected(self):
        self.fail()
    def test_f_subtests(self):
        for number in range(3):
            with self.subTest(number=number):
                self.assertNotEqual(number, 1)
    def test_g_child(self):
        if os.fork() == 0:
            try:
                unittest.TestResult().addFailure(self, (ValueError, ValueError("in a child"), None))
            finally:
                os._exit(0)
        os.wait()
    def test_h_leaves_a_daemon(self):
        daemon = subprocess.Popen(["sleep", "600"], start_new_session=True)
        Path(os.environ["TOLD"]).write_text(str(daemon.pid))
        daemon.returncode = 0  # no one waits
"""


@pytest.fixture(autouse=True)
def _needs_cpythons_tests(tmp_path: Path) -> None:
    if not CPython(PYTHON, tmp_path).has(Module("test_select")):
        pytest.skip(f"{PYTHON} has no tests of its own (Debian: libpython3-testsuite)")


def test_each_outcome_and_nothing_left(tmp_path: Path) -> None:
    (tmp_path / "test_ours.py").write_text(CASES)
    told = tmp_path / "told"
    way = Way("plain", (), {**os.environ, "TOLD": str(told)})
    found = CPython(PYTHON, tmp_path).run(Module("test_ours", ("--testdir", str(tmp_path))), way)
    words = {case.rpartition(".")[2][5]: outcome.word for case, outcome in found.items()}
    assert words == {
        "a": PASSED,
        "b": FAILED,
        "c": SKIPPED,
        "d": LOST,
        "e": PASSED,
        "f": FAILED,
        "g": PASSED,
        "h": PASSED,
    }
    assert not Path("/proc", told.read_text()).exists()


def test_one_case_alone(tmp_path: Path) -> None:
    case = "test.test_select.SelectTestCase.test_returned_list_identity"
    found = CPython(PYTHON, tmp_path).run(Module("test_select"), PLAIN, case)
    assert {name: outcome.word for name, outcome in found.items()} == {case: PASSED}


def test_the_session(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.conformance", "--logs", tmp_path / "logs", "test_poll", "test_sundry_no_such"],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    assert done.returncode == 0, done
    assert "(100.00% pass)" in done.stdout
    assert "has no test.test_sundry_no_such" in done.stderr
    assert (tmp_path / "logs" / "test_poll-spawned.log").exists()
