"""Data on a connected socket: sendto, sendmsg, recvfrom, recvmsg, and what no hook sees."""

from __future__ import annotations

from tests.shim.cases import Outcome, every_case


@every_case("data")
def test_data(outcome: Outcome) -> None:
    outcome.check()
