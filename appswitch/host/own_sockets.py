"""The two sockets that a trap handler serves: made by us, or given by the service manager that started us.

What the manager gave is its own: it listens before us and goes on after us, so a call that comes meanwhile waits in the
queue. What we make goes with us; one that an earlier trap handler left is replaced. A lock beside the trap socket tells
which: it is held as long as one lives.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from appswitch.errors import AppSwitchError
from appswitch.host.paths import control_socket, make_directory

BACKLOG = 4096
MODES = {socket.SOCK_SEQPACKET: 0o666, socket.SOCK_STREAM: 0o600}
"""Who may: the trap socket serves the programs of all users (edge/traps.py), the control socket is the owner's."""


@contextlib.contextmanager
def open_own_sockets(
    trap: Path, given: Sequence[socket.socket] = (), patience: float = 0.0
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """The trap socket, at `trap`, and the control socket, both listening and non-blocking.

    given: from the service manager; ours to close. patience: seconds to wait for another trap handler to end.
    AppSwitchError: there is another one, a socket given isn't one of these, or the place can't be used.
    """
    with contextlib.ExitStack() as stack:
        for each in given:
            stack.enter_context(each)
        by_path = {_place_of(each): each for each in given}
        stack.enter_context(_only_one(trap, patience))
        opened = [
            stack.enter_context(_open(path, kind, by_path.pop(path, None)))
            for path, kind in ((trap, socket.SOCK_SEQPACKET), (control_socket(trap), socket.SOCK_STREAM))
        ]
        for path, stranger in by_path.items():
            reason = f"the service manager gave a socket of none of ours: {path or stranger.getsockname()}"
            ours = f"ListenSequentialPacket={trap} and ListenStream={control_socket(trap)}"
            raise AppSwitchError("bad-socket", reason, f"these are: {ours}; or name another --socket")
        yield opened[0], opened[1]


def _place_of(given: socket.socket) -> Path | None:
    name = given.getsockname() if given.family == socket.AF_UNIX else ""
    return Path(name) if isinstance(name, str) and name else None


@contextlib.contextmanager
def _only_one(trap: Path, patience: float) -> Iterator[None]:
    """Makes the socket's directory and holds its lock, so that a stale socket can be told from a live one."""
    make_directory(trap)
    try:
        lock = os.open(trap.with_name(trap.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise AppSwitchError(
            "no-directory", f"{trap.parent} can't be used: {error.strerror}", "name another place with --socket"
        ) from None
    deadline = time.monotonic() + patience
    while not _locked(lock):
        if time.monotonic() >= deadline:
            os.close(lock)
            raise AppSwitchError(
                "already-serving", f"a trap handler serves {trap} already", "stop it, or name another --socket"
            )
        time.sleep(0.01)
    try:
        yield
    finally:
        os.close(lock)


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _open(path: Path, kind: socket.SocketKind, given: socket.socket | None) -> Iterator[socket.socket]:
    if given is None:
        with listen(path, kind, MODES[kind]) as made:
            yield made
        return
    if given.type != kind:
        words = {socket.SOCK_SEQPACKET: "ListenSequentialPacket", socket.SOCK_STREAM: "ListenStream"}
        raise AppSwitchError(
            "bad-socket", f"the service manager gave {path} as {given.type.name}", f"it should say {words[kind]}={path}"
        )
    given.listen(BACKLOG)  # again: from now on SO_PEERCRED of those who connect is us (unix(7)), which shims compare
    given.setblocking(False)
    yield given


@contextlib.contextmanager
def listen(path: Path, kind: socket.SocketKind, mode: int) -> Iterator[socket.socket]:
    """A listening Unix socket; a stale one of an earlier server is replaced."""
    if path.exists() and not path.is_socket():
        raise AppSwitchError("bad-socket", f"{path} is there and is no socket", "name another one with --socket")
    listening = socket.socket(socket.AF_UNIX, kind)
    try:
        path.unlink(missing_ok=True)
        mask = os.umask(0o777 & ~mode)
        try:
            listening.bind(str(path))
        finally:
            os.umask(mask)
        listening.listen(BACKLOG)
        listening.setblocking(False)
        yield listening
    finally:
        listening.close()
        path.unlink(missing_ok=True)
