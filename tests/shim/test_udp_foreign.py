"""UDP and addresses that are not the app's own; port 53."""

from __future__ import annotations

from tests.shim.cases import Outcome, every_case


@every_case("udp_foreign")
def test_udp_foreign(outcome: Outcome) -> None:
    outcome.check()
