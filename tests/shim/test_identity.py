"""getsockname and getpeername: both ends agree."""

from __future__ import annotations

from tests.shim.conftest import Outcome, check, every_case


@every_case("identity")
def test_identity(outcome: tuple[Outcome, Outcome]) -> None:
    check(outcome)
