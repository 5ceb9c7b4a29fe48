"""Datagrams: sizes, queues, timeouts."""

from __future__ import annotations

from tests.shim.cases import Outcome, every_case


@every_case("udp_data")
def test_udp_data(outcome: Outcome) -> None:
    outcome.check()
