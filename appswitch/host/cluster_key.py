"""The cluster's key: one file, the same on every node, with 32 bytes in base64, as `serf keygen` prints them.

Serf encrypts with it. What the trap handlers prove to each other is derived from it, so that neither use tells anything
about the other.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import stat
from pathlib import Path
from typing import NamedTuple

from appswitch.errors import AppSwitchError

SIZE = 32  # bytes
MAX_FILE = 1024  # bytes
HINT = "`serf keygen > FILE` makes one; every node needs the same"


class ClusterKey(NamedTuple):
    """serf: base64; peer: 32 bytes, for the channels between trap handlers."""

    serf: str
    peer: bytes


def read_key(path: Path) -> tuple[ClusterKey, str | None]:
    """The key and, where others than its owner can read the file, a warning. AppSwitchError `bad-key`."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(path.stat().st_mode)
            text = file.read(MAX_FILE + 1).strip()
    except OSError as error:
        raise AppSwitchError("bad-key", f"the key file {path} can't be read: {error.strerror}", HINT) from None
    try:
        key = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise AppSwitchError("bad-key", f"the key file {path} holds no base64", HINT) from None
    if len(key) != SIZE:
        raise AppSwitchError("bad-key", f"the key in {path} has {len(key)} bytes instead of {SIZE}", HINT)
    warning = f"the key file {path} can be read by others than its owner: chmod 600" if mode & 0o077 else None
    return ClusterKey(base64.b64encode(key).decode(), derive_peer_key(key)), warning


def derive_peer_key(key: bytes) -> bytes:
    return hashlib.blake2b(key=key, person=b"appswitch peer", digest_size=SIZE).digest()
