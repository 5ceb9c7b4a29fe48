"""Signals during calls, and calls in signal handlers."""

from __future__ import annotations

from tests.shim.cases import Outcome, every_case


@every_case("signals")
def test_signals(outcome: Outcome) -> None:
    outcome.check()
