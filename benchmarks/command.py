"""What the commands of the benchmarks share: their options, and where the numbers are kept."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def new_parser(name: str, description: str, rounds: int | None) -> argparse.ArgumentParser:
    """With the options that each has. name: the module; rounds: by default, None: each part's own.

    SIGTERM ends us as an exception does.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    made = argparse.ArgumentParser(prog=f"python -m {name}", description=description)
    default = "%(default)s" if rounds else "as often as each part needs"
    made.add_argument(
        "--rounds", type=int, default=rounds, help=f"how often everything is measured (default: {default})"
    )
    made.add_argument("--quick", action="store_true", help="a tenth of the load: to see that it works")
    made.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="where the numbers are kept")
    made.add_argument("--read", type=Path, metavar="FILE", help="measure nothing: print what is kept there")
    return made


def keep(kept: dict[str, Any], directory: Path, kind: str) -> None:
    """As JSON, in a file that says when; on stderr where."""
    directory.mkdir(exist_ok=True)
    path = directory / time.strftime(f"{kind}-%Y-%m-%dT%H-%M-%SZ.json", time.gmtime())
    path.write_text(json.dumps(kept, indent=1) + "\n")
    print(f"\nkept in {path}", file=sys.stderr)
