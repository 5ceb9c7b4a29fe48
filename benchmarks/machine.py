"""What machine it is, and with what it is measured: for whoever reads the numbers."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

VERSIONS = {
    "iperf": ("iperf", "-v"),
    "nginx": ("nginx", "-v"),
    "HAProxy": ("haproxy", "-v"),
    "wrk": ("wrk", "-v"),
    "redis": ("redis-server", "-v"),
    "bwrap": ("bwrap", "--version"),
}


def describe() -> dict[str, Any]:
    """kernel, processor, cpus, memory (GiB), python, programs: name -> version."""
    total = re.search(r"MemTotal: +(\d+) kB", Path("/proc/meminfo").read_text())
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "kernel": platform.release(),
        "processor": model[1] if model else platform.machine(),
        "cpus": os.cpu_count(),
        "memory": round(int(total[1]) / (1 << 20)) if total else 0,
        "python": platform.python_version(),
        "programs": {name: version(*command) for name, command in VERSIONS.items() if shutil.which(command[0])},
    }


def version(*command: str) -> str:
    """The first number with dots that it prints."""
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"\d+(\.\d+)+", said.stdout + said.stderr)
    return found[0] if found else "?"


def commit() -> str:
    """Of this tree, with a + where it has been changed since; "" without git."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    where = Path(__file__).parent
    return subprocess.run(command, cwd=where, capture_output=True, text=True, check=False).stdout.strip()
