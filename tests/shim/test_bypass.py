"""Every hook on what is not ours: as without the shim."""

from __future__ import annotations

from tests.shim.conftest import Outcome, check, every_case


@every_case("bypass")
def test_bypass(outcome: tuple[Outcome, Outcome]) -> None:
    check(outcome)
