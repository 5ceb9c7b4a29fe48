"""bind and listen."""

from __future__ import annotations

from tests.shim.cases import Outcome, every_case


@every_case("bind")
def test_bind(outcome: Outcome) -> None:
    outcome.check()
