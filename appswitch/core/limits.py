"""What a gateway lets in at a time: `serve --gateway-limit` (docs/gateways.md).

Two limits are of the gateway as a whole, how many connections are open and how many come in a second: at these, new
ones wait in the kernel's queue. One is of each source: more of its connections are reset, so that one host can't take
what all have. What is open already goes on in any case.

The counting is in C (shim/gateway/turnstile.c).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from attrs import frozen

from appswitch.errors import AppSwitchError

COUNT_EVERY = 1.0  # seconds at least

LIMIT_FORM = "connections=N, per-source=N, rate=N/s, first-byte=SECONDS or idle=SECONDS"

_FORM = re.compile(r"(connections|per-source|rate|first-byte|idle)=([0-9]{1,9}(?:\.[0-9]{1,3})?)(/s)?")
_WHOLE = ("connections", "per-source")


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
