"""Descriptors in more than one place: fork, vfork, dup, exec, SCM_RIGHTS."""

from __future__ import annotations

from tests.shim.cases import Outcome, every_case


@every_case("sharing")
def test_sharing(outcome: Outcome) -> None:
    outcome.check()
