"""getsockname and getpeername: both ends agree."""

from __future__ import annotations

from tests.shim.cases import Outcome, every_case


@every_case("identity")
def test_identity(outcome: Outcome) -> None:
    outcome.check()
