"""syscall()."""

from __future__ import annotations

from tests.shim.cases import Outcome, every_case


@every_case("syscalls")
def test_syscalls(outcome: Outcome) -> None:
    outcome.check()
