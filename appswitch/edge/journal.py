"""What we leave to our successor: a file in the state directory, to which each change is added as it happens.

It holds what the kernel doesn't know (wire/journal.py): who the apps are, and which UDP sockets they have bound. It
need not survive the machine, only us: nothing is waited for (fsync). Once it has grown, what still holds is written
anew. A full disk fails no call; what is missing is written later.
"""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path

import structlog
from attrs import evolve

from appswitch.model import App, Listener
from appswitch.wire import journal
from appswitch.wire.journal import GoneLine, Head, JournalError, Known, Past

FILE = "journal"
MOST = 1 << 20  # bytes, from which on it is looked at whether most of it is old
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

log = structlog.get_logger()


class Journal:
    """directory: None: nothing is kept. past: of our predecessor."""

    def __init__(self, directory: Path | None = None, past: Past | None = None) -> None:
        self.past = past or Past(Head(journal.VERSION, salt=secrets.randbits(32)))
        self._head = self.past.head
        self._apps = dict(self.past.apps)
        self._receivers = dict(self.past.receivers)
        self._path = directory / FILE if directory else None
        self._file: int | None = None
        self._size = self._size_anew = 0
        self._rewrite()

    def put_app(self, app: App, netns: int = 0, token: bytes = b"") -> None:
        """It is there, and this is how it is known again."""
        self._put(Known(app, netns, token))

    def change_app(self, app: App) -> None:
        """Its address has changed."""
        if app.id in self._apps:
            self._put(evolve(self._apps[app.id], app=app))

    def set_draining(self, app: App, draining: bool) -> None:
        """Whether it is to get new connections."""
        if app.id in self._apps:
            self._put(evolve(self._apps[app.id], draining=draining))

    def _put(self, known: Known) -> None:
        self._head.last_app = max(self._head.last_app, known.app.id)
        self._apps[known.app.id] = known
        self._write(journal.encode(journal.app_line(known)))

    def drop_app(self, app: App) -> None:
        """It has gone, with its receivers."""
        if self._apps.pop(app.id, None) is not None:
            for each in [each for each in self._receivers.values() if each.app.id == app.id]:
                del self._receivers[each.id]
            self._write(journal.encode(GoneLine(app=app.id)))

    def put_receiver(self, receiver: Listener) -> None:
        """An app has bound a UDP socket."""
        if receiver.app.id in self._apps:
            self._receivers[receiver.id] = receiver
            self._write(journal.encode(journal.receiver_line(receiver)))

    def drop_receiver(self, receiver: Listener) -> None:
        """It is closed."""
        if self._receivers.pop(receiver.id, None) is not None:
            self._write(journal.encode(GoneLine(receiver=receiver.id)))

    def close(self) -> None:
        """The file stays, for our successor."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
        self._path = None

    def _write(self, line: bytes) -> None:
        if self._path is None:
            return
        if self._file is None or self._size > max(MOST, 4 * self._size_anew):
            self._rewrite()
            return
        try:
            if os.write(self._file, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._size += len(line)
        except OSError as error:
            self._fail(error)

    def _rewrite(self) -> None:
        """Replaces the file by one with what holds now."""
        if self._path is None:
            return
        lines = [journal.encode(self._head)]
        lines += [journal.encode(journal.app_line(each)) for each in self._apps.values()]
        lines += [journal.encode(journal.receiver_line(each)) for each in self._receivers.values()]
        new = self._path.with_name(FILE + ".new")
        try:
            new.touch(mode=0o600)
            new.write_bytes(b"".join(lines))
            new.rename(self._path)
            if self._file is not None:
                os.close(self._file)
                self._file = None
            self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        except OSError as error:
            self._fail(error)
            return
        self._size = self._size_anew = sum(map(len, lines))

    def _fail(self, error: OSError) -> None:
        """What is missing is written with the next change."""
        log.warning("a successor won't know everything", file=str(self._path), reason=error.strerror)
        if self._file is not None:
            os.close(self._file)
            self._file = None


def open_journal(directory: Path, node: str) -> Journal:
    """The journal in the state directory, with what our predecessor left. node: our name.

    One that can't be read is kept aside, and another begun. OSError when the directory can't be used.
    """
    path = directory / FILE
    boot = _boot_id()
    try:
        past = journal.read(path.read_bytes(), node)
    except FileNotFoundError:
        past = None
    except JournalError as error:
        aside = free_name(path)
        path.rename(aside)
        log.warning("what our predecessor left can't be read: its apps are strangers now", reason=str(error),
                    kept=str(aside))  # fmt: skip
        past = None
    if past is None:
        past = Past(Head(journal.VERSION, salt=secrets.randbits(32)))
    elif past.head.boot != boot:  # nothing of it lives, and the cookies of namespaces begin anew
        past = Past(Head(journal.VERSION, salt=secrets.randbits(32), last_app=past.head.last_app))
    past.head.boot = boot
    return Journal(directory, past)


def _boot_id() -> str:
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""


def free_name(path: Path) -> Path:
    """Where a file may be kept aside."""
    number = 1
    while (aside := path.with_name(f"{path.name}.aside-{number}")).exists():
        number += 1
    return aside
