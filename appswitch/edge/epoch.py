"""The epoch: a number in memory that every shim may read, and only we write (shim/epoch.h).

It grows whenever a capability or a verdict that we have given may no longer hold. Its upper half is the id of our
thread, which the kernel replaces when we end (host/last_word.py): then shims know that nothing grows here any more.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import secrets

from appswitch.host import last_word

NEVER = 1  # an epoch that there never is, for no thread has the id 0: whoever is told it asks again each time
SIZE = 4096
F_ADD_SEALS = 1033  # linux/fcntl.h
F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_FUTURE_WRITE = 1, 2, 4, 16


class Epoch:
    """A page of memory, given to shims as a descriptor that can't be written to (memfd_create(2), Linux 5.1).

    It belongs to the thread that makes it.
    """

    def __init__(self) -> None:
        self.fd = os.memfd_create("appswitch-epoch", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, SIZE)
        self._page = mmap.mmap(self.fd, SIZE)
        fcntl.fcntl(self.fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE)
        self._life = last_word.own_id()
        self._count = 1 + secrets.randbelow(1 << 31)  # not where another one's was, whose thread had the same id
        self._write()
        last_word.leave_to_kernel(ctypes.addressof(ctypes.c_uint32.from_buffer(self._page, 4)))

    @property
    def now(self) -> int:
        """Never 0."""
        return self._life << 32 | self._count

    def advance(self) -> None:
        """Whoever learnt something has to ask again."""
        self._count = (self._count + 1) & 0xFFFFFFFF
        self._write()

    def close(self) -> None:
        """The trap handler stops."""
        last_word.leave_to_kernel(None)
        self._life = last_word.OWNER_DIED
        self._write()
        self._page.close()
        os.close(self.fd)

    def _write(self) -> None:
        memoryview(self._page).cast("Q")[0] = self.now  # one store of 8 bytes
