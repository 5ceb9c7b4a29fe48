"""Asking the trap handler over its control socket, synchronously, with the standard library alone."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from appswitch.errors import AppSwitchError
from appswitch.host.paths import control_socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MOST_FDS = 253  # that one message carries: SCM_MAX_FD of unix(7)


class HandlerGoneError(AppSwitchError):
    """The trap handler stopped before it answered."""


def connect(trap: Path) -> ControlClient | None:
    """A connection to a trap handler that answers, and stays while the connection lasts; None: there is none.

    AppSwitchError when it is another user's.
    """
    try:
        client = ControlClient(trap)
    except PermissionError:
        raise AppSwitchError(
            "not-yours", f"the trap handler at {trap} is another user's", "name your own with --socket"
        ) from None
    except OSError:
        return None
    try:
        client.call("hello")
    except (HandlerGoneError, OSError):  # it stops just now
        client.close()
        return None
    return client


class ControlClient:
    """One connection. OSError from the constructor: nobody listens there."""

    def __init__(self, trap: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.connect(str(control_socket(trap)))
            owner = int.from_bytes(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[4:8], "little")
            if os.geteuid() not in (0, owner) and owner != 0:
                raise PermissionError(errno.EACCES, f"user {owner}'s")
        except OSError:
            self._socket.close()
            raise

    def call(self, name: str, arguments: dict[str, object] | None = None, fds: Sequence[int] = ()) -> Any:
        """The answer to a call (wire/control.py). AppSwitchError when it is an error."""
        return self._call(name, arguments, list(fds), None)

    def call_for_sockets(self, name: str, arguments: dict[str, object]) -> tuple[Any, list[int]]:
        """The same, and the descriptors that go along with the answer."""
        received: list[int] = []
        return self._call(name, arguments, [], received), received

    def _call(self, name: str, arguments: dict[str, object] | None, fds: list[int], received: list[int] | None) -> Any:
        try:
            return _value(self._exchange(_request(name, arguments), fds, received))
        except ConnectionError:
            raise _gone() from None

    def stream(self, name: str, arguments: dict[str, object]) -> Iterator[Any]:
        """The answers to a call that has many, one by one. HandlerGoneError at the end."""
        with suppress(BrokenPipeError), self._socket.makefile("rb") as answers:
            self._socket.sendall(_request(name, arguments))
            yield from map(_value, answers)
        raise _gone()

    def _exchange(self, line: bytes, fds: list[int], received: list[int] | None) -> bytes:
        try:
            sent = socket.send_fds(self._socket, [line], fds) if fds else 0
            if sent < len(line):
                self._socket.sendall(line[sent:])
        except BrokenPipeError:
            pass  # it has closed already, but perhaps said why
        answer = b""
        while not answer.endswith(b"\n"):
            data = self._socket.recv(1 << 16) if received is None else self._receive_with(received)
            if not data:
                raise _gone()
            answer += data
        return answer

    def _receive_with(self, received: list[int]) -> bytes:
        data, fds, _, _ = socket.recv_fds(self._socket, 1 << 16, MOST_FDS, socket.MSG_CMSG_CLOEXEC)
        received += fds
        return data

    def set_timeout(self, seconds: float | None) -> None:
        """How long an answer may take; TimeoutError after that. None: however long."""
        self._socket.settimeout(seconds)

    def signal_end(self) -> None:
        """From now on this process gets SIGIO when the connection ends (fcntl(2), O_ASYNC)."""
        fcntl.fcntl(self._socket, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(self._socket, fcntl.F_SETFL, fcntl.fcntl(self._socket, fcntl.F_GETFL) | os.O_ASYNC)

    def is_closed(self) -> bool:
        """Whether the other end has closed the connection."""
        try:
            return not self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def detach(self) -> socket.socket:
        """The connection itself, from now on the caller's."""
        return self._socket

    def close(self) -> None:
        """Ends the connection."""
        self._socket.close()


def _request(name: str, arguments: dict[str, object] | None) -> bytes:
    return json.dumps({"call": name, **(arguments or {})}).encode() + b"\n"


def _value(line: bytes) -> Any:
    if not line.endswith(b"\n"):
        raise _gone()
    message = json.loads(line)
    if "error" in message:
        raise AppSwitchError(**message["error"])
    return message["ok"]


def _gone() -> HandlerGoneError:
    return HandlerGoneError("gone", "the trap handler closed the connection", "look at its log")
