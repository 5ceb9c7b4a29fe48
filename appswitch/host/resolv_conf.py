"""resolv.conf(5), as far as it concerns us."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple


class ResolvConf(NamedTuple):
    """search: suffixes, in lower case; servers: addresses; unusable: what stands where an address should."""

    search: tuple[str, ...]
    servers: tuple[str, ...]
    unusable: tuple[str, ...]


def read(path: Path) -> ResolvConf:
    """OSError when the file can't be read."""
    search: tuple[str, ...] = ()
    servers: list[str] = []
    unusable: list[str] = []
    for line in path.read_text(errors="replace").splitlines():
        match line.split():
            case ["nameserver", server, *_]:
                try:
                    servers.append(str(ip_address(server)))
                except ValueError:
                    unusable.append(server)
            case ["search" | "domain", *suffixes]:
                search = tuple(suffix.lower().strip(".") for suffix in suffixes)
    return ResolvConf(tuple(filter(None, search)), tuple(servers), tuple(unusable))
