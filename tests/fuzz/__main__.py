"""python -m tests.fuzz [--minutes N] [--only TEXT] [--seed N]: all parsers in turn, and a table of what was tried.

Each gets as much time as any other of its kind; those in C get two thirds, for they take inputs a hundred times as
fast. Where clang is there, libFuzzer is one of the fuzzers in C, valgrind another, for a few inputs; where atheris is,
it has half of the time of those in Python. What a parser fails with ends the run, and the input is kept.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from attrs import frozen

from tests.fuzz import feed
from tests.fuzz.native import NATIVES, Native
from tests.fuzz.parsers import PARSERS, Parser

BATCH = 200_000  # inputs of a parser in C, between looks at the clock
IN_C = 2 / 3  # of the time
VALGRIND = ["valgrind", "-q", "--error-exitcode=98"]  # it sees reads of what was never written
UNDER_VALGRIND = 3000  # inputs: it takes fifty times as long


@frozen
class Work:
    """A row of the table. feed: for so many seconds; how many inputs there were."""

    name: str
    fuzzer: str
    feed: Callable[[float], int]


def works_in_c(native: Native, directory: Path, seed: int) -> list[Work]:
    """By each fuzzer that is there."""

    def by_chance(seconds: float) -> int:
        program = native.build(directory)
        end, tried = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            tried += native.run(program, BATCH, seed + tried)
        return tried

    def by_libfuzzer(seconds: float) -> int:
        found = directory / f"{native.file}-found"
        found.mkdir()
        return native.run_guided(native.build(directory, by_libfuzzer=True), max(int(seconds), 1), found)

    def under_valgrind(_seconds: float) -> int:
        return native.run(native.build(directory, for_valgrind=True), UNDER_VALGRIND, seed, VALGRIND)

    works = [Work(native.name, "driver.c", by_chance)]
    if shutil.which("clang"):
        works.append(Work(native.name, "libFuzzer", by_libfuzzer))
    if shutil.which("valgrind"):
        works.append(Work(native.name, "driver.c under valgrind", under_valgrind))
    return works


def works_in_python(parser: Parser, directory: Path, seed: int) -> list[Work]:
    """The same."""

    def by_atheris(seconds: float) -> int:  # which ends its process
        words = [sys.executable, "-m", "tests.fuzz.guided", parser.name, str(max(int(seconds), 1)), str(directory)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        tried = re.findall(r"Done (\d+) (?:runs )?in", done.stderr)
        if done.returncode or not tried:
            raise feed.BugError(f"{parser.name}: {done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        return int(tried[-1])

    guided = [Work(parser.name, "atheris", by_atheris)] if importlib.util.find_spec("atheris") else []
    return [Work(parser.name, "mutate.py", lambda seconds: feed.feed(parser, random.Random(seed), seconds)), *guided]


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m tests.fuzz")
    arguments.add_argument("--minutes", type=float, default=10)
    arguments.add_argument("--only", default="", help="parsers whose name has this in it")
    arguments.add_argument("--seed", type=int, default=secrets.randbits(32))
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="as-fuzz-") as name:
        place = Path(name), given.seed
        in_c = [work for each in NATIVES if given.only in each.name for work in works_in_c(each, *place)]
        in_python = [work for each in PARSERS if given.only in each.name for work in works_in_python(each, *place)]
        share = (IN_C if in_python else 1.0) if in_c else 0.0
        print(f"seed {given.seed}\n\n| input | fuzzer | tried | seen |\n|---|---|---:|---|")
        total = 0
        for works, part in ((in_c, share), (in_python, 1 - share)):
            for work in works:
                tried = work.feed(given.minutes * 60 * part / len(works))
                total += tried
                print(f"| {work.name} | {work.fuzzer} | {tried:,} | nothing |", flush=True)
        print(f"| all | | {total:,} | nothing |")


main()
