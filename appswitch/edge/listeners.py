"""The Unix sockets that stand for listeners: made here, handed to the app, reachable by what we give out alone.

Each is bound in a directory that only we can enter, and opened with O_PATH. Connecting goes through that descriptor,
`/proc/self/fd/N`; or, for an app that may connect by itself, through a *link*, which costs half as much: the socket
file has a second name, which can't be guessed, in a directory that everybody may enter and nobody else may list. Who
has a link can do no more than with such a descriptor: the server's side checks who comes (shim/verify.h).

We keep no descriptor of the socket itself, so it lives exactly as long as the app's descriptors of
it; whether it does, the kernel says: a datagram connect to its name fails with EPROTOTYPE while it is there, and with
ECONNREFUSED once it is not (unix_find_bsd in net/unix/af_unix.c), which the app can't notice, and which takes 2 us.

The file stays as long as the listener, for our successor, to whom its name tells everything (edge/resumption.py).
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import socket
import stat
from pathlib import Path

from appswitch.model import Listener
from appswitch.wire import socknames


def _make_links(directory: Path) -> bool:
    """Empties it: what our predecessor has given out doesn't hold any more. False: it can't be had, or isn't ours."""
    try:
        directory.mkdir(mode=0o711, exist_ok=True)
        status = directory.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            return False
        directory.chmod(0o711)
        for each in directory.iterdir():
            if each.is_socket():
                each.unlink()
    except OSError:
        return False
    return True


class ListenerSockets:
    """directory: ours alone; made if it isn't there, with mode 0700. salt: in the names of our sockets, by which they
    are told from those of other trap handlers. links: the directory of the links, made likewise, and emptied; None:
    there are none.
    """

    def __init__(self, directory: Path, salt: int | None = None, links: Path | None = None) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
        self._directory = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._probe = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.salt = secrets.randbits(32) if salt is None else salt
        self._handles: dict[int, int] = {}
        self._files: dict[int, str] = {}
        self._links = links if links and _make_links(links) else None
        self._link_of: dict[int, str] = {}

    def open(self, listener: Listener) -> socket.socket:
        """A bound Unix socket named after `listener`, to be passed to the app and closed. OSError when out of room."""
        file = socknames.listener_file(self.salt, listener)
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            bound.bind(f"/proc/self/fd/{self._directory}/{file}")
            self.adopt(listener.id, file)
        except OSError:
            bound.close()
            self.discard(file)
            raise
        return bound

    def files(self) -> dict[str, int]:
        """The socket files that are there, and their inodes."""
        with os.scandir(f"/proc/self/fd/{self._directory}") as entries:
            return {each.name: each.inode() for each in entries}

    def adopt(self, listener_id: int, file: str) -> None:
        """The listener's socket is the one that is bound to `file`. OSError: it isn't there."""
        path = Path(f"/proc/self/fd/{self._directory}/{file}")
        path.chmod(0o666)  # programs of all users connect to it
        self._handles[listener_id] = os.open(file, os.O_PATH | os.O_CLOEXEC, dir_fd=self._directory)
        self._files[listener_id] = file
        if self._links is not None:
            link = secrets.token_urlsafe(16)
            with contextlib.suppress(OSError):  # another file system, or one without hard links
                os.link(path, self._links / link)
                self._link_of[listener_id] = link

    def discard(self, file: str) -> None:
        """Removes a socket file."""
        with contextlib.suppress(OSError):
            os.unlink(file, dir_fd=self._directory)

    def handle(self, listener_id: int) -> int:
        """The O_PATH descriptor, to be passed to those who may connect. KeyError when the listener has gone."""
        return self._handles[listener_id]

    def link(self, listener_id: int) -> str:
        """The name of its link; empty: it has none."""
        return self._link_of.get(listener_id, "")

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
        self.discard(self._files.pop(listener_id))
        link = self._link_of.pop(listener_id, None)
        if self._links is not None and link is not None:
            (self._links / link).unlink(missing_ok=True)

    def close(self) -> None:
        """Closes what is ours; the apps' sockets stay theirs, and their files our successor's."""
        for handle in self._handles.values():
            os.close(handle)
        self._handles.clear()
        os.close(self._directory)
        self._probe.close()
