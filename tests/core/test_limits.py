"""How many clients a gateway lets in, and when."""

from __future__ import annotations

import pytest

from appswitch.core.limits import Limits, parse_limits
from appswitch.errors import AppSwitchError


def test_all_of_them() -> None:
    texts = ["connections=1000", "per-source=20", "rate=0.5/s", "first-byte=5", "idle=300"]
    assert parse_limits(texts) == Limits(1000, 20, 0.5, 5.0, 300.0)
    assert parse_limits([]) == Limits()


NO_LIMITS = """
    connections connections= connections=0 connections=-1 connections=1.5 connections=1/s
    rate=5 rate=0/s rate=5/m idle=0.0 idle=5s idle=1e9 size=3 per_source=3 idle=٣
"""


@pytest.mark.parametrize("text", ["", *NO_LIMITS.split()])
def test_what_is_no_limit(text: str) -> None:
    with pytest.raises(AppSwitchError, match="is no limit"):
        parse_limits([text])


def test_twice() -> None:
    with pytest.raises(AppSwitchError, match="rate is given twice"):
        parse_limits(["rate=5/s", "rate=6/s"])
