"""IP addresses as the trap protocol has them: 16 bytes, IPv4 v4-mapped (RFC 4291 2.5.5.2)."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

from appswitch.model import Address

V4_MAPPED = bytes(10) + b"\xff\xff"


@lru_cache(maxsize=4096)
def unpack_ip(packed: bytes) -> Address:
    """16 bytes -> an address; v4-mapped ones are IPv4. ValueError for another size."""
    if packed.startswith(V4_MAPPED):
        return IPv4Address(packed[12:])
    return IPv6Address(packed)


@lru_cache(maxsize=4096)
def pack_ip(ip: Address) -> bytes:
    """An address -> 16 bytes."""
    return ip.packed if isinstance(ip, IPv6Address) else V4_MAPPED + ip.packed


def place(ip: Address | str, port: int | None) -> str:
    """As people write the two."""
    return f"[{ip}]:{port}" if ":" in str(ip) else f"{ip}:{port}"
