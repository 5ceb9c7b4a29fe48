"""UDP sockets over dup, fork, exec, SCM_RIGHTS and threads."""

from __future__ import annotations

from tests.shim.cases import Outcome, every_case


@every_case("udp_sharing")
def test_udp_sharing(outcome: Outcome) -> None:
    outcome.check()
