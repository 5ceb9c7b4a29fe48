"""What is kept over a call, and ways to leave one."""

from __future__ import annotations

from tests.shim.cases import Outcome, every_case


@every_case("landing")
def test_landing(outcome: Outcome) -> None:
    outcome.check()
