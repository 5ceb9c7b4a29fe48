"""Who may still come in, counted by shim/gateway/turnstile.c: for the way in that Python goes, and the one of C."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from appswitch._gateway import ffi, lib
from appswitch.core import limits
from appswitch.core.limits import Limits
from appswitch.model import Address
from appswitch.wire.addresses import pack_ip


class Turnstile:
    """Of one gateway. now: seconds of CLOCK_MONOTONIC; what the functions mean is in shim/gateway/turnstile.h."""

    def __init__(self, wanted: Limits) -> None:
        """MemoryError."""
        made = lib.as_turnstile_new(
            wanted.connections or 0, wanted.per_source or 0, wanted.rate or 0.0, limits.COUNT_EVERY
        )
        if made == ffi.NULL:
            raise MemoryError
        self.native: Any = ffi.gc(made, lib.as_turnstile_free)

    @property
    def is_full(self) -> bool:
        """Whether no more are let in before some have ended."""
        return bool(lib.as_is_full(self.native))

    def pause(self, now: float) -> float:
        """Seconds until the next one may come, as far as the rate is concerned; 0: it is let in by this call."""
        pause: float = lib.as_pause(self.native, now)
        return pause

    def give_back(self) -> None:
        """Nobody was there to be let in by it."""
        lib.as_give_back(self.native)

    def let_in(self, ip: Address) -> None:
        """It is open now."""
        lib.as_let_in(self.native, pack_ip(ip))

    def has_too_many(self, ip: Address) -> bool:
        """Whether one of that client, which is open, has to go, as far as is known."""
        return bool(lib.as_has_too_many(self.native, pack_ip(ip)))

    def turn_away(self, ip: Address) -> None:
        """It isn't open any more."""
        lib.as_turn_away(self.native, pack_ip(ip))

    def may_count_in(self, now: float) -> float:
        """Seconds until the kernel may be asked again."""
        wait: float = lib.as_may_count_in(self.native, now)
        return wait

    def count(self, now: float) -> None:
        """It is asked now; `counted` tells what it says."""
        lib.as_count(self.native, now)

    def counted(self, clients: Collection[Address]) -> None:
        """The other ends of all connections that are open."""
        lib.as_counted(self.native, b"".join(map(pack_ip, clients)), len(clients))
