"""Programs that close descriptors of ours, or have none left."""

from __future__ import annotations

from tests.shim.conftest import Outcome, check, every_case


@every_case("closing")
def test_closing(outcome: tuple[Outcome, Outcome]) -> None:
    check(outcome)
