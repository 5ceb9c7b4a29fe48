"""What a gateway lets in at a time: `serve --gateway-limit` (docs/gateways.md).

Two limits are of the gateway as a whole, how many connections are open and how many come in a second: at these, new
ones wait in the kernel's queue. One is of each source: more of its connections are reset, so that one host can't take
what all have. What is open already goes on in any case.

How many are open the kernel says (`counted`), from time to time; what was let in since then is taken to be open still.
So a count may be too high for a while, never too low, and who is at a limit counts anew before it refuses anybody.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable
from ipaddress import IPv6Network

from attrs import define, field, frozen

from appswitch.errors import AppSwitchError
from appswitch.model import Address

COUNT_EVERY = 1.0  # seconds at least
ROUNDING = 1e-6  # of a connection: who has waited as told is let in
V6_PREFIX = 64  # bits; who has one IPv6 address has all of its network (RFC 4291, 2.5.1)

LIMIT_FORM = "connections=N, per-source=N, rate=N/s, first-byte=SECONDS or idle=SECONDS"

_FORM = re.compile(r"(connections|per-source|rate|first-byte|idle)=([0-9]{1,9}(?:\.[0-9]{1,3})?)(/s)?")
_WHOLE = ("connections", "per-source")

Source = Address | IPv6Network


@frozen
class Limits:
    """None: there is no such limit. rate: connections a second; first_byte, idle: seconds."""

    connections: int | None = None
    per_source: int | None = None
    rate: float | None = None
    first_byte: float | None = None
    idle: float | None = None

    @property
    def need_count(self) -> bool:
        """Whether anybody has to know how many are open."""
        return self.connections is not None or self.per_source is not None

    @property
    def let_wait(self) -> bool:
        """Whether new ones may have to wait."""
        return self.connections is not None or self.rate is not None


def parse_limits(texts: Iterable[str]) -> Limits:
    """What `--gateway-limit` says, each. AppSwitchError `bad-limit`."""
    found: dict[str, float] = {}
    for text in texts:
        match = _FORM.fullmatch(text)
        name, number, per_second = match.groups() if match else ("", "0", None)
        if not float(number) or (per_second is not None) != (name == "rate") or (name in _WHOLE and "." in number):
            raise AppSwitchError("bad-limit", f"{text!r} is no limit", LIMIT_FORM)
        key = name.replace("-", "_")
        if key in found:
            raise AppSwitchError("bad-limit", f"{name} is given twice", LIMIT_FORM)
        found[key] = int(number) if name in _WHOLE else float(number)
    return Limits(**found)  # type: ignore[arg-type] # the names are those of the form


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
