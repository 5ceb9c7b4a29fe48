"""The epoch: a number in memory that every shim may read, and only we write (shim/epoch.h).

It grows whenever a capability or a verdict that we have given may no longer hold.
"""

from __future__ import annotations

import fcntl
import mmap
import os

SIZE = 4096
F_ADD_SEALS = 1033  # linux/fcntl.h
F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_FUTURE_WRITE = 1, 2, 4, 16
OVER = 2**64 - 1  # never given out with anything: what was learnt of a trap handler that has stopped holds no more


class Epoch:
    """A page of memory, given to shims as a descriptor that can't be written to (memfd_create(2), Linux 5.1)."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("appswitch-epoch", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, SIZE)
        self._page = mmap.mmap(self.fd, SIZE)
        fcntl.fcntl(self.fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE)
        self.now = 0
        self.advance()

    def advance(self) -> None:
        """Whoever learnt something has to ask again."""
        self._write(self.now + 1)

    def close(self) -> None:
        """The trap handler stops."""
        self._write(OVER)
        self._page.close()
        os.close(self.fd)

    def _write(self, number: int) -> None:
        self.now = number
        memoryview(self._page).cast("Q")[0] = number  # one store of 8 bytes
