"""What a supervisor is asked over its socket: JSON lines, as the trap handler's control protocol (wire/control.py)."""

from __future__ import annotations

from typing import Any

import msgspec

from appswitch.errors import AppSwitchError

MAX_LINE = 1 << 20
"""Bytes."""


class Ps(msgspec.Struct, tag_field="call", tag="ps", forbid_unknown_fields=True):
    """The programs, a row each."""


class Logs(msgspec.Struct, tag_field="call", tag="logs", forbid_unknown_fields=True):
    """What they said, an answer a piece; with `follow` until all has ended. The last answer is null."""

    services: list[str] = []
    tail: int | None = None
    follow: bool = False


class Down(msgspec.Struct, tag_field="call", tag="down", forbid_unknown_fields=True):
    """Stop all; answer once nothing is left. kill: without asking."""

    kill: bool = False


class Up(msgspec.Struct, tag_field="call", tag="up", forbid_unknown_fields=True):
    """Other services are wanted; answer once they are started, or, with `ready`, are healthy or have done their work.

    project: as `config --json` prints it; keep: of other services that there are, these stay; null: all; patience:
    seconds. The answer: NAME -> what has become of it.
    """

    project: str
    keep: list[str] | None = None
    ready: bool = False
    patience: float | None = None


Request = Ps | Logs | Down | Up

_decoder: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)


def decode(line: bytes) -> Request:
    """A request. AppSwitchError `bad-request` says what is wrong with it."""
    try:
        return _decoder.decode(line)
    except (ValueError, RecursionError) as error:  # msgspec's, text that is no UTF-8; nested without end
        raise AppSwitchError("bad-request", f"the request can't be read: {error}") from None


def encode_ok(value: Any) -> bytes:
    """A good answer."""
    return msgspec.json.encode({"ok": value}) + b"\n"


def encode_error(error: AppSwitchError) -> bytes:
    """A bad one."""
    body = {"reason": error.reason, "message": error.message, "hint": error.hint}
    return msgspec.json.encode({"error": body}) + b"\n"
