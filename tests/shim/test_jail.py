"""chroot."""

from __future__ import annotations

import pytest

from tests.shim.cases import Outcome, every_case

pytestmark = pytest.mark.root


@every_case("jail")
def test_jail(outcome: Outcome) -> None:
    outcome.check()
