"""UDP's calls with bad arguments, and by syscall(2)."""

from __future__ import annotations

from tests.shim.cases import Outcome, every_case


@every_case("udp_arguments")
def test_udp_arguments(outcome: Outcome) -> None:
    outcome.check()
