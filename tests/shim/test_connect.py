"""connect and __connect."""

from __future__ import annotations

from tests.shim.conftest import Outcome, check, every_case


@every_case("connect")
def test_connect(outcome: tuple[Outcome, Outcome]) -> None:
    check(outcome)
