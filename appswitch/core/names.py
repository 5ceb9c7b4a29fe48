"""Names of apps and the addresses they stand for.

A name is a DNS host name (RFC 1123 2.1). An app with a name and no IP gets an address derived from the name, the same
on every node: a hash picks it from 100.64.0.0/10 (RFC 6598: not used on the Internet, seldom in private networks).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Container
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address

from appswitch.errors import AppSwitchError
from appswitch.model import DOMAIN, Address, Tag

DERIVED = IPv4Network("100.64.0.0/10")
LINK_LOCALS = 0xFE00  # addresses

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
TAG_FORM = "write KEY=VALUE, the key of letters, digits and _.-, the value without spaces and commas: --tag grp=1"
_TAG = re.compile(r"(?P<key>[A-Za-z0-9_.-]{1,63})=(?P<value>[^,\s]{0,255})")


def check_name(text: str) -> str:
    """The name in lower case. AppSwitchError `bad-name` when it isn't a host name."""
    name = text.lower()
    labels = name.split(".")
    if len(name) > 200 or not all(_LABEL.fullmatch(label) for label in labels) or labels[-1].isdigit():
        raise AppSwitchError(
            "bad-name",
            f"{text!r} can't be an app's name",
            "use a-z, digits, - and _ inside, 63 at most between two dots, for example web or db-1",
        )
    if name == "localhost" or name == DOMAIN or name.endswith("." + DOMAIN):
        raise AppSwitchError("bad-name", f"{text!r} is reserved", f"names are reached as NAME and NAME.{DOMAIN}")
    return name


def is_address(text: str) -> bool:
    """Whether it is an IP address."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def check_ip(text: str) -> Address:
    """A virtual IP. AppSwitchError `bad-ip` when it isn't an address that an app can own."""
    try:
        ip = ip_address(text)
    except ValueError:
        raise AppSwitchError("bad-ip", f"{text!r} is not an IP address", "for example 10.1.1.1 or fd00::1") from None
    if isinstance(ip, IPv6Address) and (ip.scope_id or ip.ipv4_mapped):
        raise AppSwitchError("bad-ip", f"{text} can't be a virtual IP", "give it without a scope and not v4-mapped")
    if ip.is_loopback or ip.is_unspecified or ip.is_multicast or ip.is_link_local or int(ip) == 0xFFFFFFFF:
        raise AppSwitchError(
            "bad-ip", f"{text} can't be a virtual IP", "loopback, any, multicast and link-local addresses are taken"
        )
    return ip


def check_host(text: str) -> str:
    """A host outside: an address, or a name in lower case. AppSwitchError `bad-host` when it is neither."""
    host = text.lower().removesuffix(".")
    try:
        ip = ip_address(host)
    except ValueError:
        labels = host.split(".")
        if len(host) < 254 and all(_LABEL.fullmatch(each) for each in labels) and not labels[-1].isdigit():
            return host
        raise AppSwitchError("bad-host", f"{text!r} is neither an address nor a host's name") from None
    if not is_elsewhere(ip):
        hint = "loopback, link-local and multicast addresses are another host's on each gateway"
        raise AppSwitchError("bad-host", f"{ip} can't be a server outside", hint)
    return str(ip)


def is_elsewhere(ip: Address) -> bool:
    """Whether `ip` is one and the same host for all who connect to it, and not the one that does."""
    own = ip.is_loopback or ip.is_unspecified or ip.is_link_local or ip.is_multicast or int(ip) == 0xFFFFFFFF
    return not own and (ip.version == 4 or (ip.ipv4_mapped is None and not ip.scope_id))


def check_tag(text: str) -> Tag:
    """`key=value`. AppSwitchError `bad-tag` otherwise."""
    match = _TAG.fullmatch(text)
    if match is None:
        raise AppSwitchError("bad-tag", f"{text!r} is not a tag", TAG_FORM)
    return match["key"], match["value"]


def derive_ip(name: str, taken: Container[Address]) -> IPv4Address:
    """The address of an app that has only a name; the next ones are tried when others own it.

    taken: addresses that belong to something else than this name.
    """
    size = DERIVED.num_addresses - 2
    start = _hash(name)
    for step in range(size):
        ip = DERIVED.network_address + (1 + (start + step) % size)
        if ip not in taken:
            return ip
    raise AppSwitchError("no-address", f"no address is left in {DERIVED} for {name}")


def link_local(node: str, number: int) -> IPv4Address:
    """The identity of the `number`th client-only app of a node (RFC 3927; the first and last 256 are reserved)."""
    return IPv4Address(0xA9FE0100 + (_hash(node) + number) % LINK_LOCALS)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
