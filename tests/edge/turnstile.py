"""What a gateway's limits mean, in few lines: the oracle for shim/gateway/turnstile.c."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from ipaddress import IPv6Network

from attrs import define, field

from appswitch.core.limits import COUNT_EVERY, Limits
from appswitch.model import Address

ROUNDING = 1e-6  # of a connection: who has waited as told is let in
V6_PREFIX = 64  # bits; who has one IPv6 address has all of its network (RFC 4291, 2.5.1)

Source = Address | IPv6Network


def source_of(ip: Address) -> Source:
    """Whose connections are counted together."""
    return ip if ip.version == 4 else IPv6Network((ip, V6_PREFIX), strict=False)


@define
class Turnstile:
    """Of one gateway. now: seconds, of a clock that doesn't jump."""

    limits: Limits
    _open: Counter[Source] = field(factory=Counter)
    _since: Counter[Source] = field(factory=Counter)
    """Let in after the kernel was asked last."""
    _total: int = 0
    _tokens: float = field(init=False)
    _filled_at: float = -math.inf
    _counted_at: float = -math.inf

    def __attrs_post_init__(self) -> None:
        self._tokens = self._most_tokens

    @property
    def _most_tokens(self) -> float:
        """What comes at once after a quiet time: as many as in a second."""
        return max(self.limits.rate or 0.0, 1.0)

    @property
    def is_full(self) -> bool:
        """Whether no more are let in before some have ended."""
        return self.limits.connections is not None and self._total >= self.limits.connections

    def pause(self, now: float) -> float:
        """Seconds until the next one may come, as far as the rate is concerned; 0: it is let in by this call."""
        rate = self.limits.rate
        if rate is None:
            return 0.0
        earned = (now - self._filled_at) * rate
        self._tokens, self._filled_at = min(self._tokens + earned, self._most_tokens), now
        if self._tokens < 1.0 - ROUNDING:
            return (1.0 - self._tokens) / rate
        self._tokens -= 1.0
        return 0.0

    def give_back(self) -> None:
        """Nobody was there to be let in by it."""
        self._tokens += self.limits.rate is not None

    def let_in(self, ip: Address) -> None:
        """It is open now."""
        if self.limits.need_count:
            self._since[source_of(ip)] += 1
            self._total += 1

    def has_too_many(self, ip: Address) -> bool:
        """Whether one of that client, which is open, has to go, as far as is known."""
        most, source = self.limits.per_source, source_of(ip)
        return most is not None and self._open[source] + self._since[source] > most

    def turn_away(self, ip: Address) -> None:
        """It isn't open any more."""
        source = source_of(ip)
        counted_with = self._since if self._since[source] else self._open
        counted_with[source] -= 1
        self._total -= 1

    def may_count_in(self, now: float) -> float:
        """Seconds until the kernel may be asked again."""
        return max(self._counted_at + COUNT_EVERY - now, 0.0)

    def count(self, now: float) -> None:
        """It is asked now; `counted` tells what it says."""
        self._counted_at = now
        self._open += self._since
        self._since.clear()

    def counted(self, clients: Collection[Address]) -> None:
        """The other ends of all connections that are open. Those that came while it was asked count twice, until the
        next time.
        """
        self._open = Counter(map(source_of, clients))
        self._total = self._open.total() + self._since.total()
