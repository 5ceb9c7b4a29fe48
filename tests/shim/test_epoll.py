"""epoll_ctl, poll and select."""

from __future__ import annotations

from tests.shim.conftest import Outcome, check, every_case


@every_case("epoll")
def test_epoll(outcome: tuple[Outcome, Outcome]) -> None:
    check(outcome)
