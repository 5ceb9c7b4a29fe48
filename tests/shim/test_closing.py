"""Programs that close descriptors of ours, or have none left."""

from __future__ import annotations

from tests.shim.cases import Outcome, every_case


@every_case("closing")
def test_closing(outcome: Outcome) -> None:
    outcome.check()
