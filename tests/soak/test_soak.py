"""Two minutes of it in CI; `./dev soak --minutes N` for as long as asked."""

from __future__ import annotations

import os

import pytest

from tests.hosts import network
from tests.soak.world import Soak

SECONDS = 120.0 if "CI" in os.environ else 15.0


@pytest.mark.root
@pytest.mark.program("serf")
@pytest.mark.timeout(SECONDS + 240)
def test_nothing_is_lost_or_left_over() -> None:
    with network() as net:
        soak = Soak(net, seed=9)
        soak.run(SECONDS)
    assert soak.seen["connects"] > 100
    assert soak.seen["refused"] > 20
    assert soak.seen["kept on"] > 5
