"""What a trap handler that runs as root keeps of root's power (capabilities(7)); all else goes before it listens.

It looks into namespaces and descriptors of other processes (SYS_ADMIN, SYS_PTRACE), cuts and sets up sockets that
programs get (NET_*, SYS_RESOURCE for their buffers), and reads and makes files that are other users' (DAC_*). The rest
can't be got back, and nor can what it starts (Serf, relays, keepers of containers) have it: it goes out of the
bounding set, too, and no program gains by being setuid (PR_SET_NO_NEW_PRIVS, prctl(2)). An ordinary user's has nothing
to lose but the latter. The systemd unit says the same (packaging/systemd).
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from pathlib import Path

KEPT = {
    "chown": 0,
    "dac_override": 1,
    "dac_read_search": 2,
    "fowner": 3,
    "kill": 5,
    "net_bind_service": 10,
    "net_admin": 12,
    "net_raw": 13,
    "sys_ptrace": 19,
    "sys_admin": 21,
    "sys_resource": 24,
}  # as linux/capability.h numbers them
_MASK = sum(1 << number for number in KEPT.values())

_PR_CAPBSET_READ, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 23, 24, 38, 47, 4
_VERSION_3 = 0x20080522  # capget(2): two words a set

_libc = ctypes.CDLL(None, use_errno=True)


def drop() -> None:
    """For this process, before it has threads. OSError when the kernel refuses it."""
    for number in range(64):
        bounding = _prctl(_PR_CAPBSET_READ, number, refused=errno.EINVAL)
        if bounding < 0:
            break  # the kernel knows no more
        if bounding and not _MASK >> number & 1:
            _prctl(_PR_CAPBSET_DROP, number, refused=errno.EPERM)  # an ordinary user has no say, and no capabilities
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    had = held()
    header = struct.pack("=Ii", _VERSION_3, 0)
    sets = [had["effective"] & _MASK, had["permitted"] & _MASK, 0]
    data = struct.pack("=6I", *(each & 0xFFFFFFFF for each in sets), *(each >> 32 for each in sets))
    if _libc.capset(header, data):
        raise OSError(ctypes.get_errno(), "capset: " + os.strerror(ctypes.get_errno()))
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def held(pid: int | str = "self") -> dict[str, int]:
    """The sets of a process, each as the kernel's mask: permitted, effective, bounding. OSError when it has gone."""
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    sets = {"permitted": "CapPrm", "effective": "CapEff", "bounding": "CapBnd"}
    return {name: int(status[field], 16) for name, field in sets.items()}


def _prctl(option: int, argument: int, refused: int | None = None) -> int:
    """What it returns; -1 where the kernel refuses it by the error that is named."""
    words = [ctypes.c_ulong(argument), *[ctypes.c_ulong(0)] * 3]
    done = int(_libc.prctl(option, *words))
    if done < 0 and ctypes.get_errno() != refused:
        raise OSError(ctypes.get_errno(), f"prctl {option}: " + os.strerror(ctypes.get_errno()))
    return done
