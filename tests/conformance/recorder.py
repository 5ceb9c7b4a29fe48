"""Runs a test-suite and writes down what became of each case.

`python recorder.py FILE MODULE ARG...` does what `python -m MODULE ARG...` does, and adds a line of JSON, [case,
outcome, why], to FILE whenever a unittest case starts and whenever its outcome is known: so a case that hangs or
crashes is seen, too. It runs in the interpreter under test, which has nothing of ours: standard library only.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import unittest
from collections.abc import Callable
from typing import Any

# Kept as they are now: cases put other things in their place.
_open, _write, _close, _getpid, _dumps = os.open, os.write, os.close, os.getpid, json.dumps
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND


def record(path: str) -> None:
    """Has every unittest result of this process, not of its children, written to `path`."""
    process = _getpid()

    def note(case: Any, outcome: str, why: str = "") -> None:
        if _getpid() != process:
            return
        name = getattr(case, "test_case", case).id()  # of a subtest: the case it belongs to
        file = _open(path, _FLAGS, 0o600)  # anew: cases close descriptors that aren't theirs
        _write(file, (_dumps([name, outcome, why]) + "\n").encode())
        _close(file)

    def wrap(name: str, see: Callable[..., None]) -> None:
        original = getattr(unittest.TestResult, name)

        def method(self: unittest.TestResult, case: Any, *rest: Any) -> None:
            see(case, *rest)
            original(self, case, *rest)

        setattr(unittest.TestResult, name, method)

    def failed(case: Any, error: Any) -> None:
        note(case, "failed", f"{error[0].__name__}: {error[1]}"[:300])

    wrap("startTest", lambda case: note(case, "started"))
    wrap("addSuccess", lambda case: note(case, "passed"))
    wrap("addExpectedFailure", lambda case, error: note(case, "passed"))
    wrap("addSkip", lambda case, reason: note(case, "skipped", str(reason)))
    wrap("addUnexpectedSuccess", lambda case: note(case, "failed", "unexpected success"))
    wrap("addError", failed)
    wrap("addFailure", failed)
    wrap("addSubTest", lambda case, subtest, error: failed(case, error) if error else None)


if __name__ == "__main__":
    record(os.path.abspath(sys.argv[1]))  # noqa: PTH100
    sys.argv[:] = sys.argv[2:]
    sys.path[0] = ""  # as -m has it
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
