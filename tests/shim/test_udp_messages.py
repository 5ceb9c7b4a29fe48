"""sendmsg and its kin, and what goes beside the data."""

from __future__ import annotations

from tests.shim.cases import Outcome, every_case


@every_case("udp_messages")
def test_udp_messages(outcome: Outcome) -> None:
    outcome.check()
