"""epoll_ctl, poll and select."""

from __future__ import annotations

from tests.shim.cases import Outcome, every_case


@every_case("epoll")
def test_epoll(outcome: Outcome) -> None:
    outcome.check()
