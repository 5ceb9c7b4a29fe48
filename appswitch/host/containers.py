"""What a container needs of us, in one directory: the trap socket, the preload library and the tracer.

Whoever has the directory may say who they are (edge/containers.py): so on this host only its owner may come to it, and
a container comes to it since it is mounted there. Mounted is the directory, not the socket: so a trap handler that is
started again is found.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import SOCK_SEQPACKET, socket

from appswitch.errors import AppSwitchError
from appswitch.host.own_sockets import listen
from appswitch.host.paths import shim_path, tracer_path
from appswitch.host.succession import Handed, Successor


@contextmanager
def open_directory(directory: Path, handed: Handed, successor: Successor) -> Iterator[socket]:
    """Furnishes it; the socket that containers call. AppSwitchError: it can't be, or others may come to it."""
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        directory.chmod(0o755)
        if all(parent.stat().st_mode & 0o011 for parent in directory.parents):
            hint = f"chmod 700 {directory.parent}; a container that has it mounted is let in all the same"
            raise AppSwitchError("no-directory", f"other users can come to {directory}", hint)
        for each in (shim_path(), tracer_path()):
            if each.exists():
                _put(each, directory / each.name)
    except OSError as error:
        reason = f"{directory} can't be used: {error.strerror}"
        raise AppSwitchError("no-directory", reason, "name another place with --containers") from None
    with listen(directory / "trap.sock", SOCK_SEQPACKET, 0o666, handed, successor) as listening:
        yield listening


def _put(file: Path, place: Path) -> None:
    """A new file: running programs have the old one mapped."""
    new = place.with_name(place.name + ".new")
    shutil.copyfile(file, new)
    new.chmod(0o755)
    new.rename(place)


def is_sealed(pid: int) -> bool:
    """Whether a process's network namespace has nothing but `lo`. OSError: it has gone."""
    lines = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
    return {line.partition(":")[0].strip() for line in lines} <= {"lo", *_ALWAYS}


def namespace_of(pid: int | str) -> int:
    """What tells network namespaces apart while they last. OSError: it has gone."""
    return Path(f"/proc/{pid}/ns/net").stat().st_ino


def somebody_in(namespace: int) -> int | None:
    """A process in that network namespace, the oldest of the least pid, but for this one."""
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):  # noqa: PTH208 - no Path for each
        try:
            if pid != os.getpid() and namespace_of(pid) == namespace:
                return pid
        except OSError:
            continue
    return None


_ALWAYS = ("sit0", "tunl0", "ip6tnl0", "gre0", "gretap0", "erspan0", "ip6gre0", "ip_vti0", "ip6_vti0")
"""Interfaces that the kernel makes in each namespace when a module is loaded; nobody has set them up."""
