"""What makes a host one of several: `serve --bind`, `--join` and `--key-file`, put together.

Two ports: Serf's, for membership and events, and the next one, where the other trap handlers reach ours: channels and
connections by TCP, the datagrams of apps by UDP.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
from ipaddress import ip_address
from pathlib import Path

from attrs import frozen

from appswitch.edge import peers
from appswitch.edge.serf import PORT, SerfSettings
from appswitch.errors import AppSwitchError
from appswitch.host.cluster_key import ClusterKey, read_key

Place = tuple[str, int]
"""An address or a host's name, and a port."""


@frozen
class ClusterSettings:
    """bind: our own address, and Serf's port; join: others, with theirs; key: None: none; serf: the program."""

    bind: Place
    join: tuple[Place, ...] = ()
    key: ClusterKey | None = None
    serf: str = "serf"

    @property
    def peer_port(self) -> int:
        """Where the other trap handlers reach ours."""
        return self.bind[1] + 1


def read_settings(bind: str | None, join: tuple[str, ...], key_file: Path | None, serf: str) -> ClusterSettings | None:
    """From the command line; None: a host by itself. AppSwitchError `bad-bind`, `bad-join`, `bad-key`."""
    if bind is None and not join:
        if key_file is not None:
            raise AppSwitchError("bad-key", "--key-file is for several hosts", "give --bind or --join, too")
        return None
    others = tuple(parse_place(text, "bad-join") for text in join)
    own = parse_place(bind, "bad-bind") if bind is not None else (_source_towards(others), PORT)
    try:
        if ip_address(own[0]).is_unspecified:
            raise ValueError
    except ValueError:
        raise AppSwitchError("bad-bind", f"{own[0]} is no address that others could reach",
                             "give one of this host's: --bind 10.0.0.1") from None  # fmt: skip
    return ClusterSettings(own, others, read_key(key_file) if key_file else None, serf)


def parse_place(text: str, reason: str, port: int = PORT) -> Place:
    """`HOST`, `HOST:PORT`, `[V6]` or `[V6]:PORT`; also a bare V6. AppSwitchError `reason` when it is none of them."""
    match = re.fullmatch(r"\[([^]]+)\](?::(\d+))?", text) or re.fullmatch(r"([^:\s]+)(?::(\d+))?", text)
    host, number = (match[1], int(match[2] or port)) if match else (text, port)
    if (match is None and not _is_ip(text)) or not 0 < number < 65535:  # the next port is ours, too
        raise AppSwitchError(
            reason, f"{text!r} is not HOST[:PORT]", "for example 10.0.0.1, db.example:7946 or [fd00::1]:7946"
        )
    return host, number


def _is_ip(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _source_towards(others: tuple[Place, ...]) -> str:
    """Our address on the way to the first of them that has one. AppSwitchError `bad-join`."""
    for host, port in others:
        with suppress(OSError):
            for family, kind, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM):
                with socket.socket(family, kind) as unsent:  # connecting UDP sends nothing, but chooses a route
                    unsent.connect(address)
                    source: str = unsent.getsockname()[0]
                    return source
    names = " or ".join(host for host, _ in others)
    raise AppSwitchError("bad-join", f"there is no way to {names} now", "give our own address: --bind ADDR")
