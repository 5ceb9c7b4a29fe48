"""How often apps connect without asking: counted in memory that an app's shim shares with us (shim/counters.h).

A page an app, made with its first capability. Each of its processes maps it and adds one to a slot a connect; we read,
now and then. An app could write anything there: it is told of that app's own connects to what it was let to, and a
number that can't be is cut. The page can't be made smaller under us (memfd_create(2), F_SEAL_SHRINK).
"""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
from collections.abc import Callable

from appswitch.core.service_table import ServiceTable
from appswitch.model import App, Listener
from appswitch.wire.trap import COUNTERS

F_ADD_SEALS = 1033  # linux/fcntl.h
F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW = 1, 2, 4
SIZE = 4 * COUNTERS  # bytes
OTHERS = 0  # the slot of listeners that there is no other one for
MOST = 10_000_000  # that are believed at once; a look a second sees no more


class Page:
    """One app's. number: no other page has it."""

    def __init__(self, app: App) -> None:
        """OSError: there is no descriptor, or no memory, for one."""
        self.app = app
        self.number = secrets.randbits(63) | 1 << 63
        self.fd = os.memfd_create("appswitch-counters", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.fd, SIZE)
            self._page = mmap.mmap(self.fd, SIZE)
            fcntl.fcntl(self.fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW)
        except OSError:
            os.close(self.fd)
            raise
        self._counters = memoryview(self._page).cast("I")
        self._slots: dict[int, int] = {}
        self._listeners: dict[int, Listener] = {}
        self._seen: dict[int, int] = {OTHERS: 0}
        self._free = list(range(COUNTERS - 1, OTHERS, -1))

    def slot_of(self, listener: Listener) -> int:
        """Where connects to it are counted."""
        slot = self._slots.get(listener.id)
        if slot is None:
            if not self._free:
                return OTHERS
            slot = self._slots[listener.id] = self._free.pop()
            self._seen[slot] = self._counters[slot]
        self._listeners[slot] = listener
        return slot

    def read(self, table: ServiceTable) -> list[tuple[Listener | None, int]]:
        """What has been added since the last time, where there is any; None: of OTHERS. Slots of the gone are freed."""
        found: list[tuple[Listener | None, int]] = []
        for slot, seen in list(self._seen.items()):
            count = self._counters[slot]
            listener = self._listeners.get(slot)
            if count != seen:
                self._seen[slot] = count
                found.append((listener, min(count - seen & 0xFFFFFFFF, MOST)))
            if listener is not None and listener.id not in table.listeners:
                del self._slots[listener.id], self._listeners[slot], self._seen[slot]
                self._free.append(slot)
        return found

    def close(self) -> None:
        self._counters.release()
        self._page.close()
        os.close(self.fd)


class Counters:
    """Those of this host's apps. counted: called with client, listener (None: not known) and how often."""

    def __init__(self, table: ServiceTable, counted: Callable[[App, Listener | None, int], None]) -> None:
        self._table = table
        self._counted = counted
        self._pages: dict[int, Page] = {}

    def page_of(self, app: App) -> Page | None:
        """None: there is no descriptor, or no memory, for one."""
        page = self._pages.get(app.id)
        if page is None:
            try:
                page = self._pages[app.id] = Page(app)
            except OSError:
                return None
        return page

    def collect(self) -> None:
        """Looks at all pages."""
        for page in self._pages.values():
            self._collect(page)

    def forget(self, app: App) -> None:
        """It has ended: what it did last is counted still."""
        page = self._pages.pop(app.id, None)
        if page is not None:
            self._collect(page)
            page.close()

    def close(self) -> None:
        """All of them."""
        for page in self._pages.values():
            page.close()
        self._pages.clear()

    def _collect(self, page: Page) -> None:
        for listener, count in page.read(self._table):
            self._counted(self._table.apps.get(page.app.id, page.app), listener, count)
