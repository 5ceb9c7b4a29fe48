"""A project's directory, beside the trap socket of its programs: who runs it, where they are asked, what was said.

compose/PROJECT/lock                   held by the supervisor, as long as there is one
compose/PROJECT/supervisor.control     its socket (host/control_client.py)
compose/PROJECT/log, log.1             what the programs said (logbook.py)
compose/PROJECT/supervisor.log         what went wrong in the background
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from appswitch.errors import AppSwitchError
from appswitch.host.control_client import ControlClient
from appswitch.host.paths import SUN_PATH, control_socket, make_directory


class Home:
    """trap: the trap socket. AppSwitchError when the directory's path is too long for a socket in it."""

    def __init__(self, trap: Path, project: str) -> None:
        self.project = project
        self.trap = trap
        self.directory = trap.parent / "compose" / project
        self._lock_file = self.directory / "lock"
        self.log = self.directory / "log"
        self.supervisor_log = self.directory / "supervisor.log"
        self.door = self.directory / "supervisor"
        """What a control client is told to find the supervisor's socket."""
        if len(os.fsencode(control_socket(self.door))) >= SUN_PATH:
            reason = f"the path of the project's socket is too long: {control_socket(self.door)}"
            raise AppSwitchError("bad-socket", reason, "name a shorter trap socket, or a shorter --project-name")

    @contextmanager
    def taken(self) -> Iterator[None]:
        """For a supervisor: the directory is ours, and new. AppSwitchError `running`: another one has it."""
        make_directory(self.trap)
        try:
            with self._lock():
                self._clear()
                try:
                    yield
                finally:
                    shutil.rmtree(self.directory, ignore_errors=True)
                    with suppress(OSError):  # another project is there
                        self.directory.parent.rmdir()
        except BlockingIOError:
            hint = f"`appswitch compose down -p {self.project}` stops it; another --project-name is another project"
            raise AppSwitchError("running", f"project {self.project} is up already", hint) from None

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """BlockingIOError: another process has it."""
        while True:
            try:
                self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                if self.directory.lstat().st_uid not in (0, os.geteuid()):
                    raise AppSwitchError("not-yours", f"{self.directory} is another user's")
                lock = self._lock_file.open("w")
            except FileNotFoundError:  # who had it has removed all just now
                continue
            except OSError as error:
                raise AppSwitchError("no-directory", f"{self.directory} can't be used: {error.strerror}") from None
            with lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(lock.fileno(), self._lock_file):
                    yield
                    return

    def wait_until_left(self) -> None:
        """Returns once there is no supervisor any more, and nothing of it."""
        with suppress(FileNotFoundError), self._lock_file.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)

    def tidy(self) -> None:
        """Removes what a supervisor that was killed has left."""
        if self.directory.exists():
            with self.taken():
                pass

    def _clear(self) -> None:
        for each in self.directory.iterdir():
            if each != self._lock_file:
                each.unlink()

    def connect(self) -> ControlClient | None:
        """A connection to the supervisor; None: there is none."""
        try:
            return ControlClient(self.door)
        except PermissionError:
            raise AppSwitchError("not-yours", f"project {self.project} is another user's") from None
        except OSError:
            return None


def _is_at(fd: int, path: Path) -> bool:
    """Whether the file is still the one that is there."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(fd), path.stat())
    return False
