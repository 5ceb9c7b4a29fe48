"""accept and accept4."""

from __future__ import annotations

from tests.shim.cases import Outcome, every_case


@every_case("accept")
def test_accept(outcome: Outcome) -> None:
    outcome.check()
