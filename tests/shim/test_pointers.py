"""Wild pointers and bad descriptors."""

from __future__ import annotations

from tests.shim.cases import Outcome, every_case


@every_case("pointers")
def test_pointers(outcome: Outcome) -> None:
    outcome.check()
