"""What kind of program a file is, as far as the preload library cares (elf(5), execve(2), ld.so(8))."""

from __future__ import annotations

import os
import re
import stat
import struct
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

_PT_INTERP, _PT_NOTE = 3, 4
_HEAD = 256  # bytes of a file that the kernel looks at, so a script's first line may be as long (execve(2))
_SCRIPT_DEPTH = 4  # interpreters of interpreters; the kernel's own limit
_MACHINES = {"x86_64": 62, "aarch64": 183}  # e_machine
_LOADERS = ("ld-linux", "ld-musl")  # of the C libraries that libappswitch.so works with
_GO_NOTE = rb"(?s)\x04\0\0\0....\x04\0\0\0Go\0\0"  # go's build id (cmd/internal/buildid)
NOT_RUN = ("not-found", "not-executable")
"""Reasons of what can't be run at all."""
_OTHER_BUILD = "run another build of it, if there is one"


class Obstacle:
    """What keeps a program from being trapped. reason: a short stable word; hint: what to do about it."""

    def __init__(self, reason: str, message: str, hint: str) -> None:
        self.reason = reason
        self.message = message
        self.hint = hint


class _Segment:
    """An entry of the program header table."""

    def __init__(self, kind: int, offset: int, size: int) -> None:
        self.kind = kind
        self.offset = offset
        self.size = size


def find_obstacle(command: str, path: str | None = None) -> Obstacle | None:
    """What keeps LD_PRELOAD from working in `command` (a name to look for in PATH, or a path), or it from being run
    at all; None: nothing, or who knows.
    """
    found = _find(command, path)
    for _ in range(_SCRIPT_DEPTH):
        if isinstance(found, Obstacle):
            return found
        try:
            with Path(found).open("rb") as file:
                head = file.read(_HEAD)
                interpreter = _interpreter(head)
                if interpreter is None:
                    return _elf_obstacle(found, head, file) if head[:4] == b"\x7fELF" else None
                script, found = found, _find(interpreter, path)
                if isinstance(found, Obstacle):
                    hint = found.hint or f"install it, or name another in the first line of {script}"
                    return Obstacle(found.reason, f"{script} can't be run: {found.message}", hint)
        except (OSError, ValueError, struct.error):  # it has no such place (an offset beyond all files)
            return None
    return None


def which(command: str, path: str | None = None) -> str | None:
    """As shutil.which, which takes several milliseconds to import."""
    places = os.get_exec_path(None if path is None else {"PATH": path})
    files = [command] if "/" in command else [str(Path(place, command)) for place in places]
    return next((each for each in files if os.access(each, os.X_OK) and not Path(each).is_dir()), None)


def _find(command: str, path: str | None) -> str | Obstacle:
    found = which(command, path)
    if found is not None:
        return found
    if "/" in command and Path(command).exists():
        hint = "it is a directory" if Path(command).is_dir() else f"chmod +x {command}"
        return Obstacle("not-executable", f"{command} can't be executed", hint)
    return Obstacle("not-found", f"{command} isn't there", "" if "/" in command else "it is looked for in PATH")


def _interpreter(head: bytes) -> str | None:
    """The program that a script is for; through env(1), the one that it runs. None: no script."""
    words = [os.fsdecode(word) for word in head[2:].split(b"\n")[0].split()] if head[:2] == b"#!" else []
    if not words:
        return None
    if Path(words[0]).name == "env":
        return next((word for word in words[1:] if word[0] != "-" and "=" not in word), words[0])
    return words[0]


def _elf_obstacle(found: str, head: bytes, file: BinaryIO) -> Obstacle | None:
    (machine,) = struct.unpack_from("<H", head, 18)
    if head[4] != 2 or machine != _MACHINES.get(os.uname().machine, machine):
        return Obstacle("other-machine", f"{found} is for another architecture than libappswitch.so", _OTHER_BUILD)
    secure = _secure_execution(found)
    if secure:
        hint = f"a copy without it can be trapped, if it works so: cp {found} ."
        return Obstacle("secure", f"{found} {secure}: the dynamic linker ignores LD_PRELOAD", hint)
    segments = _segments(head, file)
    loader = next((_content(each, file) for each in segments if each.kind == _PT_INTERP), None)
    if loader is None:
        is_go = any(re.search(_GO_NOTE, _content(each, file)) for each in segments if each.kind == _PT_NOTE)
        return Obstacle("static", f"{found} is statically linked" + (" (by Go)" if is_go else ""), _OTHER_BUILD)
    if any(re.search(_GO_NOTE, _content(each, file)) for each in segments if each.kind == _PT_NOTE):
        return Obstacle("go", f"{found} is written in Go: it makes its system calls without libc", _OTHER_BUILD)
    name = os.fsdecode(loader.rstrip(b"\0"))
    if name and not Path(name).exists():
        return Obstacle("no-loader", f"{found} needs {name}, which isn't there", "install the C library that it is for")
    if name and not Path(name).name.startswith(_LOADERS):
        return Obstacle("other-libc", f"{found} is for a C library other than glibc and musl ({name})", _OTHER_BUILD)
    return None


def _secure_execution(found: str) -> str | None:
    """Why the program gains something by being executed, so that the linker is careful (ld.so(8))."""
    if os.geteuid() == 0:
        return None
    if Path(found).stat().st_mode & (stat.S_ISUID | stat.S_ISGID):
        return "is setuid or setgid"
    return "has file capabilities" if "security.capability" in os.listxattr(found) else None


def _segments(head: bytes, file: BinaryIO) -> list[_Segment]:
    offset, size, count = struct.unpack_from("<Q", head, 32)[0], *struct.unpack_from("<HH", head, 54)
    file.seek(offset)
    table = file.read(size * count)
    entries = []
    for at in range(0, len(table) - 39, size or 1):
        kind, start, length = struct.unpack_from("<I4xQ16xQ", table, at)
        entries.append(_Segment(kind, start, length))
    return entries


def _content(segment: _Segment, file: BinaryIO) -> bytes:
    file.seek(segment.offset)
    return file.read(min(segment.size, 4096))
