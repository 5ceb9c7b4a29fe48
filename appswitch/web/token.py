"""The token that `serve --http` asks for where others than this host's programs reach it."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from appswitch.errors import AppSwitchError

FILE = "http-token"
LEAST = 16  # characters


def token_file(state_dir: Path) -> Path:
    """Where it is."""
    return state_dir / FILE


def read_or_make(state_dir: Path) -> str:
    """The token of this host; it is made once, and stays. AppSwitchError `bad-token` when the file can't be used."""
    path = token_file(state_dir)
    try:
        try:
            made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return _read(path)
        token = secrets.token_urlsafe(32)
        with os.fdopen(made, "w") as file:
            file.write(token + "\n")
    except OSError as error:
        raise AppSwitchError("bad-token", f"{path} can't be used: {error.strerror}") from None
    return token


def _read(path: Path) -> str:
    mode = path.stat().st_mode
    if mode & 0o077:
        raise AppSwitchError("bad-token", f"{path} can be read by others", f"chmod 600 {path}, or remove it")
    token = path.read_text(errors="replace").strip()
    if len(token) < LEAST or not token.isascii() or not token.isprintable() or set(token) & set(' ";,\\'):
        hint = f"remove it: another one is made; or write {LEAST} letters and digits or more into it"
        raise AppSwitchError("bad-token", f"{path} has no token that could be used", hint)
    return token
