"""connect of a UDP socket."""

from __future__ import annotations

from tests.shim.cases import Outcome, every_case


@every_case("udp_connect")
def test_udp_connect(outcome: Outcome) -> None:
    outcome.check()
