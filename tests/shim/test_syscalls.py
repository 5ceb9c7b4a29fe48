"""syscall()."""

from __future__ import annotations

from tests.shim.conftest import Outcome, check, every_case


@every_case("syscalls")
def test_syscalls(outcome: tuple[Outcome, Outcome]) -> None:
    check(outcome)
