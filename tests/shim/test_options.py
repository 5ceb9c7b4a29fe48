"""getsockopt and setsockopt."""

from __future__ import annotations

from tests.shim.conftest import Outcome, check, every_case


@every_case("options")
def test_options(outcome: tuple[Outcome, Outcome]) -> None:
    check(outcome)
