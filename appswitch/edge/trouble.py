"""Accepting that fails, mostly for want of descriptors: who waits stays in the kernel's queue, and is tried again and
again; the log has it once.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable

import structlog
from attrs import define

QUIET = 10.0  # seconds without trouble: what comes then is told again

log = structlog.get_logger()


@define
class Trouble:
    """what: the line in the log."""

    what: str
    clock: Callable[[], float] = time.monotonic
    _last: float = -math.inf

    def note(self, error: int | None) -> None:
        """It has failed, with this errno. It may be one success after each failure, so successes aren't noted."""
        now = self.clock()
        if now - self._last > QUIET:
            log.warning(self.what, reason=os.strerror(error or 0))
        self._last = now


class OfTrio(logging.Handler):
    """trio.serve_listeners logs a traceback each time."""

    def __init__(self) -> None:
        super().__init__()
        self._trouble = Trouble("commands or DNS queries by TCP can't be accepted: they wait")

    def emit(self, record: logging.LogRecord) -> None:
        """As of logging.Handler."""
        error = record.exc_info[1] if record.exc_info else None
        self._trouble.note(error.errno if isinstance(error, OSError) else None)

    def install(self) -> None:
        """From now on."""
        logger = logging.getLogger("trio.serve_listeners")
        logger.addHandler(self)
        logger.propagate = False
