"""Many threads at once, and forks between them."""

from __future__ import annotations

from tests.shim.conftest import Outcome, check, every_case


@every_case("threads")
def test_threads(outcome: tuple[Outcome, Outcome]) -> None:
    check(outcome)
