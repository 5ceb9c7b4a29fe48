"""The Unix sockets that stand for listeners: made here, handed to the app, reachable through us alone.

Each is bound in a directory that only we can enter, opened with O_PATH, and unlinked: nothing is left in the file
system to attack or to clean up. Connecting goes through the O_PATH descriptor, `/proc/self/fd/N`. We keep no descriptor
of the socket itself, so it lives exactly as long as the app's descriptors of it; whether it does, the kernel says: a
datagram connect to its name fails with EPROTOTYPE while it is there, and with ECONNREFUSED once it is not
(unix_find_bsd in net/unix/af_unix.c), which the app can't notice, and which takes 2 us.
"""

from __future__ import annotations

import errno
import os
import secrets
import socket
from pathlib import Path

from appswitch.model import Listener
from appswitch.wire import socknames


class ListenerSockets:
    """directory: ours alone; made if it isn't there, with mode 0700."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
        for leftover in directory.glob("as.*"):
            leftover.unlink()
        self._directory = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._probe = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.salt = secrets.randbits(32)
        """In the names of our sockets: there may be another trap handler's."""
        self._handles: dict[int, int] = {}

    def open(self, listener: Listener) -> socket.socket:
        """A bound Unix socket named after `listener`, to be passed to the app and closed. OSError when out of room."""
        path = f"/proc/self/fd/{self._directory}/{socknames.listener_file(self.salt, listener)}"
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            bound.bind(path)
            try:
                self._handles[listener.id] = os.open(path, os.O_PATH | os.O_CLOEXEC)
            finally:
                Path(path).unlink()
        except OSError:
            bound.close()
            raise
        return bound

    def handle(self, listener_id: int) -> int:
        """The O_PATH descriptor, to be passed to those who may connect. KeyError when the listener has gone."""
        return self._handles[listener_id]

    def path(self, listener_id: int) -> str:
        """Where to connect to. KeyError when the listener has gone."""
        return f"/proc/self/fd/{self._handles[listener_id]}"

    def alive(self, listener_id: int) -> bool:
        """Whether the app still has the socket open."""
        try:
            self._probe.connect(self.path(listener_id))
        except OSError as error:
            return error.errno != errno.ECONNREFUSED  # want of memory, or of permission, says nothing
        raise AssertionError("a stream socket took a datagram connect")

    def forget(self, listener_id: int) -> None:
        """The listener has gone."""
        os.close(self._handles.pop(listener_id))

    def close(self) -> None:
        """Closes what is ours; the apps' sockets stay theirs."""
        for listener_id in list(self._handles):
            self.forget(listener_id)
        os.close(self._directory)
        self._probe.close()
