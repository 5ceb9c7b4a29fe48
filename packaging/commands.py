"""Commands that have to work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def run(*command: str | Path, **options: str | Path | dict[str, str]) -> str:
    """Its output; ends this program with all that it said when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return str(done.stdout)
