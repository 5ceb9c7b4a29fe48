"""Descriptors in more than one place: fork, vfork, dup, exec, SCM_RIGHTS."""

from __future__ import annotations

from tests.shim.conftest import Outcome, check, every_case


@every_case("sharing")
def test_sharing(outcome: tuple[Outcome, Outcome]) -> None:
    check(outcome)
