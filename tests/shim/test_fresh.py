"""TCP sockets that are made as Unix sockets, in a process that connects by capability (shim/fresh.h)."""

from __future__ import annotations

from tests.shim.cases import Outcome, every_case


@every_case("fresh", among=["plain", "trapped", "warm", "notify", "ptrace"])
def test_fresh(outcome: Outcome) -> None:
    outcome.check()
