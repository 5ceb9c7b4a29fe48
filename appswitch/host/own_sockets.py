"""The two sockets that a trap handler serves: made by us, or given by the service manager that started us.

What the manager gave is its own: it listens before us and goes on after us, so a call that comes meanwhile waits in the
queue. What we make goes with us; one that an earlier trap handler left is replaced. A lock beside the trap socket tells
which: it is held as long as one lives. Who takes over from us (host/succession.py) gets all of them, and the lock.
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
from appswitch.host.succession import Handed, Predecessor, Successor

BACKLOG = 4096
LASTING = b"lasting\n"
MODES = {socket.SOCK_SEQPACKET: 0o666, socket.SOCK_STREAM: 0o600}
"""Who may: the trap socket serves the programs of all users (edge/traps.py), the control socket is the owner's."""


@contextlib.contextmanager
def open_own_sockets(
    trap: Path,
    given: Sequence[socket.socket] = (),
    patience: float = 0.0,
    predecessor: Predecessor | None = None,
    successor: Successor | None = None,
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """The trap socket, at `trap`, and the control socket, both listening and non-blocking.

    given: from the service manager; ours to close. patience: seconds to wait for another trap handler to end; one that
    has come to stay has none.
    AppSwitchError: there is another one, a socket given isn't one of these, or the place can't be used.
    """
    successor = successor or Successor()
    handed = predecessor.handed if predecessor else Handed()
    with contextlib.ExitStack() as stack:
        for each in given:
            stack.enter_context(each)
        by_path = {_place_of(each): each for each in given}
        successor.offered.append(stack.enter_context(_only_one(trap, patience, predecessor)))
        opened = [
            stack.enter_context(_open(path, kind, by_path.pop(path, None), handed, successor))
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
def _only_one(trap: Path, patience: float, predecessor: Predecessor | None) -> Iterator[int]:
    """Makes the socket's directory and holds its lock, so that a stale socket can be told from a live one."""
    make_directory(trap)
    if predecessor is not None:  # the lock is that of the open file, whoever holds it (flock(2))
        with os.fdopen(predecessor.lock):
            _say_whether_lasting(predecessor.lock, patience == 0)
            yield predecessor.lock
        return
    try:
        lock = os.open(_lock_of(trap), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
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
        _say_whether_lasting(lock, patience == 0)
        yield lock
    finally:
        os.close(lock)


def _say_whether_lasting(lock: int, lasting: bool) -> None:
    """For `had_lasting`; on a full disk it isn't said."""
    with contextlib.suppress(OSError):
        os.ftruncate(lock, 0)
        os.pwrite(lock, LASTING * lasting, 0)


def had_lasting(trap: Path) -> bool:
    """Whether the latest trap handler there was none that goes with its last app: then another one may come soon."""
    with contextlib.suppress(OSError):
        return _lock_of(trap).read_bytes() == LASTING
    return False


def _lock_of(trap: Path) -> Path:
    return trap.with_name(trap.name + ".lock")


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _open(
    path: Path, kind: socket.SocketKind, given: socket.socket | None, handed: Handed, successor: Successor
) -> Iterator[socket.socket]:
    if given is None:
        with listen(path, kind, MODES[kind], handed, successor) as made:
            yield made
        return
    if given.type != kind:
        words = {socket.SOCK_SEQPACKET: "ListenSequentialPacket", socket.SOCK_STREAM: "ListenStream"}
        raise AppSwitchError(
            "bad-socket", f"the service manager gave {path} as {given.type.name}", f"it should say {words[kind]}={path}"
        )
    show_us(given)
    given.setblocking(False)
    successor.offered.append(given.fileno())
    yield given


def show_us(listening: socket.socket) -> None:
    """Those who connect from now on see us (SO_PEERCRED of unix(7)), which shims compare with who connects to them."""
    listening.listen(BACKLOG)


@contextlib.contextmanager
def listen(
    path: Path, kind: socket.SocketKind, mode: int, handed: Handed, successor: Successor
) -> Iterator[socket.socket]:
    """A listening Unix socket; a stale one of an earlier server is replaced, one handed over is taken as it is.

    That one shows its former owner still (`show_us`).
    """
    former = handed.take(kind, str(path))
    listening = former or _make(path, kind, mode)
    made = former is None or str(path) in handed.made
    try:
        successor.offered.append(listening.fileno())
        if made:
            successor.made.append(str(path))
        yield listening
    finally:
        listening.close()
        if made and (former is None or handed.is_released):
            successor.remove(path)


def _make(path: Path, kind: socket.SocketKind, mode: int) -> socket.socket:
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
    except BaseException:
        listening.close()
        path.unlink(missing_ok=True)
        raise
    return listening
