"""python -m tests.fuzz.guided PARSER SECONDS DIRECTORY: atheris feeds a parser in Python, by the branches it takes.

Once the time is over the process ends, and says how many inputs there were, as libFuzzer does.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["appswitch", "dns", "yaml", "tomllib", "h11"], enable_loader_override=False):
    from tests.fuzz.feed import check
    from tests.fuzz.parsers import PARSERS, named


def main() -> None:
    name, seconds, directory = sys.argv[1:]
    parser = named(name)
    corpus = Path(directory) / f"guided-{PARSERS.index(parser)}"
    corpus.mkdir()
    for number, data in enumerate((*parser.seeds, *parser.hostile)):
        (corpus / str(number)).write_bytes(data)
    options = [f"-max_total_time={seconds}", "-max_len=4096", f"-artifact_prefix={corpus}/"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], lambda data: check(parser, data))
    atheris.Fuzz()


main()
