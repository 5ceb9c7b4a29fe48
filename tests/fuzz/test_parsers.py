"""A short time with each parser in Python; the same inputs each time. (`./dev fuzz` is for longer.)"""

from __future__ import annotations

import random

import pytest

from tests.fuzz import feed
from tests.fuzz.parsers import PARSERS, Parser

SECONDS = 0.3  # of processor time


@pytest.mark.parametrize("parser", PARSERS, ids=lambda each: each.name)
def test_any_bytes_are_read_or_refused_and_good_ones_still_read(parser: Parser) -> None:
    for seed in parser.seeds:
        parser.read(seed)
    assert feed.feed(parser, random.Random(7), SECONDS) > len(parser.seeds) + len(parser.hostile)
