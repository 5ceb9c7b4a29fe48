"""Where AF_UNIX differs from TCP: under `spawn --tcp` it doesn't."""

from __future__ import annotations

from tests.shim.cases import Outcome, every_case


@every_case("tcp", among=["plain", "tcp"])
def test_tcp(outcome: Outcome) -> None:
    outcome.check()
