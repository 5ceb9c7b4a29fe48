"""What kind of program a file is, as far as the preload library cares (elf(5), execve(2))."""

from __future__ import annotations

import os
import shutil
import stat
import struct
from pathlib import Path

_PT_INTERP = 3
_HEAD = 256  # bytes of a file that the kernel looks at, so a script's first line may be as long (execve(2))
_SCRIPT_DEPTH = 4  # interpreters of interpreters; the kernel's own limit


def why_untrapped(command: str, path: str | None = None) -> str | None:
    """Why LD_PRELOAD can't work in `command` (a name to look for in PATH, or a path); None: it can, or who knows."""
    found = shutil.which(command, path=path)
    for _ in range(_SCRIPT_DEPTH):
        if found is None:
            return None
        try:
            mode = Path(found).stat().st_mode
            with Path(found).open("rb") as file:
                head = file.read(_HEAD)
                if head[:2] == b"#!":
                    words = head[2:].split(b"\n")[0].split()
                    found = shutil.which(os.fsdecode(words[0])) if words else None
                    continue
                if head[:5] != b"\x7fELF\x02":
                    return None
                if mode & (stat.S_ISUID | stat.S_ISGID) and os.geteuid() != 0:
                    return f"{found} is setuid or setgid: the dynamic linker ignores LD_PRELOAD"
                offset, size, count = struct.unpack_from("<Q", head, 32)[0], *struct.unpack_from("<HH", head, 54)
                file.seek(offset)
                table = file.read(size * count)
        except (OSError, struct.error):
            return None
        kinds = [struct.unpack_from("<I", table, at)[0] for at in range(0, len(table) - 3, size or 1)]
        return None if _PT_INTERP in kinds else f"{found} is statically linked"
    return None
