"""Destinations that an app reaches by its own host's network, as they are (`spawn --bypass`, docs/gateways.md).

A name means what our DNS was asked for, as in a policy, and for the same reason it opens no address that isn't public.
What belongs to apps stays theirs, an app's own loopback, too, unless that is what is named. Port 53 stays AppSwitch's
DNS server's, unless it is named: else `--bypass 10.0.0.0/8` would cut an app off from the names of the others.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from functools import lru_cache
from ipaddress import IPv4Network, ip_network

from appswitch.core.names import DERIVED
from appswitch.core.policy import Network, is_public
from appswitch.errors import AppSwitchError
from appswitch.model import DNS_PORT, DOMAIN, App, Bypass, Outside

BYPASS_FORM = "CIDR, ADDR or a name outside, and perhaps ports: 10.0.0.0/8, [fd00::1]:443, *.corp.example:443,8000-8999"

_FORM = re.compile(r"(?:\[(?P<inner>[^][]+)\]|(?P<plain>[^][:]+))(?::(?P<ports>[0-9,-]+))?")
_NAME = re.compile(r"[a-z0-9_*?-]+(\.[a-z0-9_*?-]+)*")


def parse_bypass(text: str) -> Bypass:
    """What `--bypass` says. AppSwitchError `bad-bypass` when that can't be done."""
    match = _FORM.fullmatch(text)
    if match is None and text.count(":") > 1:  # an IPv6 network, which needs no brackets without ports
        return Bypass(_place(text, text))
    if match is None:
        raise _error(text, "is nothing that can be bypassed")
    ports = tuple(_range(text, each) for each in match["ports"].split(",")) if match["ports"] else ()
    return Bypass(_place(text, match["inner"] or match["plain"]), ports)


def _place(text: str, said: str) -> str:
    place = said.lower().removesuffix(".")
    try:
        network = ip_network(place)
    except ValueError as error:
        if "host bits" in str(error):
            raise _error(text, f"names an address and not a network: {error}") from None
        return _name(text, place)
    if network.is_multicast or int(network.network_address) == 0xFFFFFFFF:
        raise _error(text, "can't be bypassed: multicast and broadcast stay within the app")
    if isinstance(network, IPv4Network) and network.subnet_of(DERIVED):
        raise _error(text, f"can't be bypassed: {DERIVED} are addresses of apps")
    if network.version == 6 and network.network_address.ipv4_mapped:
        raise _error(text, "is an IPv4 network in another form", "write it as IPv4: 10.0.0.0/8")
    return str(network)


def _name(text: str, place: str) -> str:
    labels = place.split(".")
    if "/" in place or ":" in place or not _NAME.fullmatch(place) or labels[-1].isdigit():
        raise _error(text, "is neither a network, an address nor a name")
    if place == DOMAIN or place.endswith("." + DOMAIN):
        raise _error(text, "is the name of an app", "bypassed is what is outside")
    if place != "localhost" and len(labels) == 1 and not set(place) & set("*?"):
        raise _error(text, "has no dot, as names outside have", f"give it in full: {place}.example.com")
    return place


def _range(text: str, said: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", said)
    low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 0 < low <= high < 65536:
        raise _error(text, f"has ports that can't be: {said!r}")
    return low, high


def _error(text: str, what: str, hint: str = BYPASS_FORM) -> AppSwitchError:
    return AppSwitchError("bad-bypass", f"{text!r} {what}", hint)


def bypass_of(app: App, server: Outside, port: int) -> Bypass | None:
    """What of the app's has (server, port) reached by the host's network; None: nothing."""
    return next((each for each in app.bypasses if _fits(each, server, port)), None)


def _fits(bypass: Bypass, server: Outside, port: int) -> bool:
    named = any(low <= port <= high for low, high in bypass.ports)
    if not named and (bypass.ports or port == DNS_PORT):
        return False
    networks = _networks(bypass.place)
    if networks:
        return any(server.ip in each and (each.is_loopback or not server.ip.is_loopback) for each in networks)
    return is_public(server.ip) and any(fnmatchcase(name, bypass.place) for name in server.names)


def is_named(app: App, name: str) -> bool:
    """Whether the app bypasses AppSwitch for what `name`, in lower case, stands for."""
    return any(not _networks(each.place) and fnmatchcase(name, each.place) for each in app.bypasses)


@lru_cache(256)
def _networks(place: str) -> tuple[Network, ...]:
    """Those that a place stands for; none: it is a name."""
    if place == "localhost":
        return ip_network("127.0.0.1"), ip_network("::1")
    try:
        return (ip_network(place),)
    except ValueError:
        return ()
