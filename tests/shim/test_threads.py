"""Many threads at once, and forks between them."""

from __future__ import annotations

from tests.shim.cases import Outcome, every_case


@every_case("threads")
def test_threads(outcome: Outcome) -> None:
    outcome.check()
