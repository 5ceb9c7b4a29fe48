"""connect and __connect."""

from __future__ import annotations

from tests.shim.cases import Outcome, every_case


@every_case("connect")
def test_connect(outcome: Outcome) -> None:
    outcome.check()
