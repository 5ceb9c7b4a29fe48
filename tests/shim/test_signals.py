"""Signals during calls, and calls in signal handlers."""

from __future__ import annotations

from tests.shim.conftest import Outcome, check, every_case


@every_case("signals")
def test_signals(outcome: tuple[Outcome, Outcome]) -> None:
    check(outcome)
