"""Ending a connection from outside, whoever holds it.

Whoever has a descriptor of a socket can shut it down for all who have one, and the other end is at its end then, too.
So one is borrowed from a process that holds it: pidfd_getfd(2) (Linux 5.6). The kernel lets root do that, and the user
who made the user namespace that an app runs in (ptrace(2), "Ptrace access mode checking"); with an app that has no
namespace, only where yama's ptrace_scope is 0.
"""

from __future__ import annotations

import ctypes
import os
import socket
import stat
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

PIDFD_GETFD = 438  # the number of the system call, the same on x86_64 and aarch64

_libc = ctypes.CDLL(None, use_errno=True)


def shut_down(inodes: Collection[int]) -> set[int]:
    """Shuts sockets down, both ways; those that it was done to. Takes a millisecond for some hundred descriptors."""
    done: set[int] = set()
    for process in Path("/proc").iterdir():
        if len(done) == len(inodes):
            break
        if process.name.isdigit():
            for fd, inode in _sockets_of(process):
                if inode in inodes and inode not in done and _shut_down(int(process.name), fd, inode):
                    done.add(inode)
    return done


def _sockets_of(process: Path) -> Iterator[tuple[int, int]]:
    """(descriptor, inode) of each socket that it has; none when it has gone, or isn't ours to look at."""
    with suppress(OSError):
        for fd in os.listdir(process / "fd"):  # noqa: PTH208 - names are all that is wanted, of many
            with suppress(OSError):
                target = os.readlink(f"{process}/fd/{fd}")  # noqa: PTH115 - as above
                if target.startswith("socket:["):
                    yield int(fd), int(target[8:-1])


def _shut_down(pid: int, fd: int, inode: int) -> bool:
    try:
        process = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        borrowed = _libc.syscall(PIDFD_GETFD, process, fd, 0)
    finally:
        os.close(process)
    if borrowed < 0:
        return False
    try:
        status = os.fstat(borrowed)
        if not stat.S_ISSOCK(status.st_mode) or status.st_ino != inode:  # the number is another file's by now
            return False
        end = socket.socket(fileno=borrowed)
        with suppress(OSError):  # ENOTCONN: it is shut down already
            end.shutdown(socket.SHUT_RDWR)
        end.detach()
    finally:
        os.close(borrowed)
    return True
