"""SIGSYS, by which static programs are told of their calls, is the programs' own as well."""

from __future__ import annotations

from tests.shim.cases import Outcome, every_case


@every_case("sigsys")
def test_sigsys(outcome: Outcome) -> None:
    outcome.check()
