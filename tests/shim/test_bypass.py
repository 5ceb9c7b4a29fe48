"""Every hook on what is not ours: as without the shim."""

from __future__ import annotations

from tests.shim.cases import Outcome, every_case


@every_case("bypass")
def test_bypass(outcome: Outcome) -> None:
    outcome.check()
