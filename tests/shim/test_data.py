"""Data on a connected socket: sendto, sendmsg, recvfrom, recvmsg, and what no hook sees."""

from __future__ import annotations

from tests.shim.conftest import Outcome, check, every_case


@every_case("data")
def test_data(outcome: tuple[Outcome, Outcome]) -> None:
    check(outcome)
