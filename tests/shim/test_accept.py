"""accept and accept4."""

from __future__ import annotations

from tests.shim.conftest import Outcome, check, every_case


@every_case("accept")
def test_accept(outcome: tuple[Outcome, Outcome]) -> None:
    check(outcome)
