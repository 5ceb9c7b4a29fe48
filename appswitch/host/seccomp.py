"""Filters of system calls (seccomp(2)): io_uring is refused as by a kernel that has none, so that programs fall back to
the calls that the shim traps.

Nothing that goes through a ring passes libc, so the shim can't see it; a filter can: ENOSYS for the three
calls, everything else is allowed. The kernel finds out beforehand that the verdict on all others depends on nothing but
the number, so what the filter costs is 25 ns a call. It needs CAP_SYS_ADMIN, which an app has that gets a namespace,
or PR_SET_NO_NEW_PRIVS, which would keep setuid programs from working: so without a namespace there is a filter for
root only, and for others the shim's `syscall` answers.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

SYS_SECCOMP = {"x86_64": 317, "aarch64": 277}
SECCOMP_GET_ACTION_AVAIL = 2
SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW = 1, 4  # the flag: no slow-down before Linux 5.16
RET_ALLOW, RET_ERRNO, RET_TRAP = 0x7FFF0000, 0x00050000, 0x00030000
# The same on every architecture that x86_64 and aarch64 kernels run programs of, so there is nothing to check; but
# those of x32 have a bit set.
IO_URING_SETUP, IO_URING_REGISTER = 425, 427
X32_BIT = 0x40000000

# struct sock_filter (linux/filter.h): code, jump if true, jump if false, operand
_LOAD, _AND, _IF_AT_LEAST, _IF_GREATER, _RETURN = 0x20, 0x54, 0x35, 0x25, 0x06
_INSTRUCTIONS = [
    (_LOAD, 0, 0, 0),  # the number of the call: the first word of struct seccomp_data
    (_AND, 0, 0, ~X32_BIT & 0xFFFFFFFF),
    (_IF_AT_LEAST, 0, 2, IO_URING_SETUP),
    (_IF_GREATER, 1, 0, IO_URING_REGISTER),
    (_RETURN, 0, 0, RET_ERRNO | errno.ENOSYS),
    (_RETURN, 0, 0, RET_ALLOW),
]


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


_libc = ctypes.CDLL(None, use_errno=True)


def refuse_io_uring() -> bool:
    """For this process and what it becomes and starts. False: it may not set a filter, or this kernel knows none."""
    number = SYS_SECCOMP.get(os.uname().machine)
    if number is None:
        return False
    packed = b"".join(struct.pack("=HBBI", *each) for each in _INSTRUCTIONS)
    program = _Program(len(_INSTRUCTIONS), packed)
    mode = ctypes.c_long(SECCOMP_SET_MODE_FILTER), ctypes.c_long(SECCOMP_FILTER_FLAG_SPEC_ALLOW)
    if _libc.syscall(ctypes.c_long(number), *mode, ctypes.byref(program)) == 0:
        return True
    error = ctypes.get_errno()
    if error in (errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENOSYS):  # EPERM: by a filter that is there already
        return False
    raise OSError(error, os.strerror(error))


def can_trap() -> bool:
    """Whether a filter may have a thread told of its own calls, by SIGSYS, instead of having them made."""
    number = SYS_SECCOMP.get(os.uname().machine, -1)
    query = ctypes.c_long(SECCOMP_GET_ACTION_AVAIL), ctypes.c_long(0), ctypes.byref(ctypes.c_uint32(RET_TRAP))
    return bool(_libc.syscall(ctypes.c_long(number), *query) == 0)
