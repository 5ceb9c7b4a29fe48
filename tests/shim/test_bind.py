"""bind and listen."""

from __future__ import annotations

from tests.shim.conftest import Outcome, check, every_case


@every_case("bind")
def test_bind(outcome: tuple[Outcome, Outcome]) -> None:
    check(outcome)
