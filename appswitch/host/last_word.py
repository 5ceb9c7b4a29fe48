"""A word of memory that the kernel changes when this thread ends, however it ends.

It does so for robust futexes (set_robust_list(2), exit_robust_list in kernel/futex/core.c): a word that holds the id of
a thread that ends becomes FUTEX_OWNER_DIED. One word a thread can be named without a list, as the one that an operation
is pending on. So whoever shares the memory learns of a kill -9, without a system call.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading

OWNER_DIED = 1 << 30
_SYS_SET_ROBUST_LIST = {"x86_64": 273, "aarch64": 99}

_libc = ctypes.CDLL(None, use_errno=True)


class _List(ctypes.Structure):
    """struct robust_list_head of linux/futex.h."""

    _fields_ = (("next", ctypes.c_void_p), ("futex_offset", ctypes.c_long), ("pending", ctypes.c_void_p))


_lists: dict[int, _List] = {}
"""The kernel reads them at the end: by thread id."""


def own_id() -> int:
    """What the word has to hold while this thread lives."""
    return threading.get_native_id()


def leave_to_kernel(address: int | None) -> None:
    """From now on the kernel changes the 32-bit word at `address` when this thread ends; None: no longer. OSError.

    libc has made a list of its own for its robust mutexes, which Python doesn't use.
    """
    head = _List(futex_offset=0, pending=address)
    head.next = ctypes.addressof(head)  # empty
    number = _SYS_SET_ROBUST_LIST.get(os.uname().machine)
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if _libc.syscall(number, ctypes.byref(head), ctypes.sizeof(head)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    _lists[own_id()] = head
