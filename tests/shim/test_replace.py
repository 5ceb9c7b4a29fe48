"""What a descriptor keeps when another file is put under it."""

from __future__ import annotations

from tests.shim.cases import Outcome, every_case


@every_case("replace")
def test_replace(outcome: Outcome) -> None:
    outcome.check()
