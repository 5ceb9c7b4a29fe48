"""What processes cost, by /proc (proc(5)): time of the processor, and memory."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

PROC = Path("/proc")


def family(roots: Iterable[int]) -> set[int]:
    """These processes and all that descend from them, pids."""
    children: dict[int, list[int]] = {}
    for each in PROC.glob("[0-9]*/stat"):
        with suppress(OSError):
            pid, _, rest = each.read_text().partition(" ")
            children.setdefault(int(rest.rpartition(")")[2].split()[1]), []).append(int(pid))
    found: set[int] = set()
    new = list(roots)
    while new:
        parent = new.pop()
        found.add(parent)
        new += children.get(parent, [])
    return found


def is_spawn(pid: int) -> bool:
    """Whether it is a process of `appswitch spawn` itself, by its command; what has ended isn't."""
    try:
        return "spawn" in (PROC / str(pid) / "cmdline").read_text().split("\0")
    except OSError:
        return False


def processor(pids: Iterable[int]) -> float:
    """Seconds so far, user's and system's, of all their threads that live."""
    nanoseconds = 0
    for pid in pids:
        for thread in PROC.glob(f"{pid}/task/*/schedstat"):
            with suppress(OSError):
                nanoseconds += int(thread.read_text().split()[0])
    return nanoseconds / 1e9


@lru_cache
def softirq_threads() -> frozenset[int]:
    """The kernel's, which do what the network stack couldn't do in the sender's own time."""
    names = {int(each.parent.name): each.read_text() for each in PROC.glob("[0-9]*/comm")}
    return frozenset(pid for pid, name in names.items() if name.startswith("ksoftirqd/"))


def memory(pids: Iterable[int]) -> float:
    """Bytes; what several share counts in parts (PSS). What has ended meanwhile has none."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return float(total)


def available() -> int:
    """Bytes of this machine's memory that programs may still take."""
    (line,) = (each for each in (PROC / "meminfo").read_text().splitlines() if each.startswith("MemAvailable:"))
    return int(line.split()[1]) * 1024
