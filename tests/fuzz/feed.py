"""Feeds the parsers in Python, for some time."""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path

from tests.fuzz.mutate import inputs
from tests.fuzz.parsers import PARSERS, Parser

EVERY = 16  # inputs, then a good one


class BugError(Exception):
    """What was wrong, and with which input."""


def feed(parser: Parser, rng: random.Random, seconds: float) -> int:
    """How many inputs there were in that much processor time. BugError."""
    good = parser.seeds[0]
    expected = parser.read(good)
    end, tried = time.process_time() + seconds, 0
    for data in inputs((*parser.seeds, *parser.hostile), rng):
        tried += 1
        check(parser, data)
        if tried % EVERY == 0:
            if parser.read(good) != expected:
                raise BugError(f"{parser.name}: what came before has upset it: {data[:99]!r}")
            if time.process_time() > end:
                break
    return tried


def check(parser: Parser, data: bytes) -> None:
    """BugError: it is neither read nor refused."""
    try:
        parser.feed(data)
    except Exception as error:
        kept = Path(tempfile.gettempdir()) / f"bug-{PARSERS.index(parser)}"
        kept.write_bytes(data)
        raise BugError(f"{parser.name}: {type(error).__name__}: {error}: {kept} has {data[:99]!r}...") from error
