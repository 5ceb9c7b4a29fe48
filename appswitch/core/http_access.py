"""Who may ask over HTTP.

On loopback: every program of this host; what must not is a page of some other site in a browser of this host, which
could have its name lead to our address (DNS rebinding). The browser tells the name, in Host; so that has to be an
address, or localhost, which are nobody's to lead elsewhere. Elsewhere: who shows the token, as
`Authorization: Bearer`, or in a cookie that the page's first call gets for it. Such a cookie isn't sent to other names.
"""

from __future__ import annotations

import hmac
import re
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address

from attrs import field, frozen

from appswitch.core.names import is_address
from appswitch.errors import AppSwitchError
from appswitch.model import Address

TOKEN = "token"
"""In a query."""


@frozen
class Refusal:
    """status: of HTTP; reason: for people."""

    status: int
    reason: str


@frozen
class Access:
    """token: None: none is needed; cookie: its name, which no other server at this address should have."""

    token: str | None = field(default=None, repr=False)
    cookie: str = "appswitch"

    def judge(self, host: str | None, authorization: str | None, cookies: str | None) -> Refusal | None:
        """By a request's headers Host, Authorization and Cookie. None: it may ask."""
        if self.token is None:
            if host is not None and is_own_name(host):
                return None
            return Refusal(421, "ask for this by an address of this host, or as localhost")
        scheme, _, shown = (authorization or "").partition(" ")
        if scheme.lower() == "bearer" and self.takes(shown.strip()):
            return None
        if self.takes(_cookie(cookies or "", self.cookie)):
            return None
        return Refusal(401, "this needs the token of `serve`: its log says which file has it (docs/metrics.md)")

    def takes(self, shown: str | None) -> bool:
        """Whether this is the token. It takes as long, whatever is wrong with it."""
        if self.token is None or shown is None:
            return False
        return hmac.compare_digest(shown.encode(errors="surrogateescape"), self.token.encode())


def _cookie(text: str, name: str) -> str | None:
    try:
        morsel = SimpleCookie(text).get(name)
    except CookieError:
        return None
    return morsel.value if morsel is not None else None


def is_own_name(host: str) -> bool:
    """Whether a Host header (RFC 9110 7.2) has an address, or a name for loopback (RFC 6761 6.3)."""
    match = re.fullmatch(r"\[([0-9A-Fa-f:.]+)\](?::\d*)?|([^:\[\]]+)(?::\d*)?", host, re.ASCII)
    if match is None:
        return False
    name = (match[1] or match[2]).lower().removesuffix(".")
    return name == "localhost" or name.endswith(".localhost") or is_address(name)


def parse_place(text: str) -> tuple[Address, int]:
    """`ADDR:PORT`, `[V6]:PORT` or `localhost:PORT`. AppSwitchError `bad-http` when it is none of them."""
    match = re.fullmatch(r"\[([^]]+)\]:(\d{1,5})|([^:\[\]]+):(\d{1,5})", text, re.ASCII)
    try:
        if match is None:
            raise ValueError
        host, port = match[1] or match[3], int(match[2] or match[4])
        if port > 65535:
            raise ValueError
        return ip_address("127.0.0.1" if host == "localhost" else host), port
    except ValueError:
        hint = "for example 127.0.0.1:8080, [::1]:8080, or 0.0.0.0:8080 with a token"
        raise AppSwitchError("bad-http", f"--http: {text!r} is not ADDR:PORT", hint) from None


def needs_token(ip: Address) -> bool:
    """Whether others than the programs of this host reach this address."""
    mapped = getattr(ip, "ipv4_mapped", None)
    return not (mapped or ip).is_loopback
