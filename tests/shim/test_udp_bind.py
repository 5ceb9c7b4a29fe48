"""bind of a UDP socket; its name at each stage."""

from __future__ import annotations

from tests.shim.cases import Outcome, every_case


@every_case("udp_bind")
def test_udp_bind(outcome: Outcome) -> None:
    outcome.check()
