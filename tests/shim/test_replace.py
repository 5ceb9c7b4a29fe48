"""What a descriptor keeps when another file is put under it."""

from __future__ import annotations

from tests.shim.conftest import Outcome, check, every_case


@every_case("replace")
def test_replace(outcome: tuple[Outcome, Outcome]) -> None:
    check(outcome)
