"""The file that keeps a node's external servers over its restarts: JSON (edge/externals.py has the file)."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from attrs import frozen

VERSION = 1


@frozen
class Kept:
    """An external server as it was registered: ip: None: derived from its name; backends: PORT:HOST:PORT each;
    started: when, in seconds since 1970.
    """

    name: str
    backends: tuple[str, ...]
    ip: str | None = None
    tags: tuple[str, ...] = ()
    started: float = 0.0


class _File(msgspec.Struct, forbid_unknown_fields=True):
    version: int
    externals: list[Kept]


_decoder = msgspec.json.Decoder(_File)


def encode(externals: Iterable[Kept]) -> bytes:
    """For people to read, too."""
    return msgspec.json.format(msgspec.json.encode(_File(VERSION, list(externals)))) + b"\n"


def decode(content: bytes) -> list[Kept]:
    """ValueError says what can't be read."""
    try:
        file = _decoder.decode(content)
    except RecursionError:
        raise ValueError("arrays too deep in one another") from None
    if file.version != VERSION:
        raise ValueError(f"it is of version {file.version}, this is version {VERSION}")
    return file.externals
