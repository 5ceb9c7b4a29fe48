"""getsockopt and setsockopt."""

from __future__ import annotations

from tests.shim.cases import Outcome, every_case


@every_case("options")
def test_options(outcome: Outcome) -> None:
    outcome.check()
