"""Multicast of a program with itself."""

from __future__ import annotations

from tests.shim.cases import Outcome, every_case


@every_case("udp_multicast")
def test_udp_multicast(outcome: Outcome) -> None:
    outcome.check()
