"""poll, select and epoll of UDP sockets."""

from __future__ import annotations

from tests.shim.cases import Outcome, every_case


@every_case("udp_events")
def test_udp_events(outcome: Outcome) -> None:
    outcome.check()
