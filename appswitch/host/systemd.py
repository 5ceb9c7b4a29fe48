"""What systemd and a service say to each other: who is ready, which sockets are there already.

To the manager go datagrams to the Unix socket NOTIFY_SOCKET (sd_notify(3)); from it come open sockets from descriptor 3
on, and LISTEN_PID, which says whom they are meant for (sd_listen_fds(3)). Both are a few bytes: no library is needed.
Where there is no manager, nothing is said and nothing is taken.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping
from contextlib import suppress

FIRST = 3  # SD_LISTEN_FDS_START
OURS = (
    "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"
)  # fmt: skip
MEANT_FOR = ("LISTEN_PID", "WATCHDOG_PID")
"""Variables that name the process they are meant for."""


class Manager:
    """Where to say how this service is; without a NOTIFY_SOCKET everything is said to nobody."""

    def __init__(self, address: str = "", watchdog: float | None = None) -> None:
        """watchdog: seconds after which it must hear from us again (sd_watchdog_enabled(3)); None: it needn't."""
        self._address = address
        self.watchdog = watchdog

    @property
    def listens(self) -> bool:
        """Whether there is one."""
        return bool(self._address)

    def ready(self, status: str | None = None) -> None:
        """The service does what it is there for. status: as below."""
        self._tell(READY=1, **({} if status is None else {"STATUS": status}))

    def reloading(self) -> None:
        """The settings are read again; `ready` says the end of it."""
        self._tell(RELOADING=1, MONOTONIC_USEC=time.monotonic_ns() // 1000)

    def stopping(self) -> None:
        """The service is about to end."""
        self._tell(STOPPING=1, STATUS="stopping")

    def status(self, text: str) -> None:
        """For people: what `systemctl status` shows."""
        self._tell(STATUS=text)

    def alive(self) -> None:
        """The watchdog's time begins anew."""
        self._tell(WATCHDOG=1)

    def _tell(self, **facts: object) -> None:
        """A manager that doesn't read costs the message, and no time."""
        if not self._address:
            return
        name = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        message = "\n".join(f"{key}={value}" for key, value in facts.items())
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as to:
            to.sendto(message.encode(), name)


def take(environment: MutableMapping[str, str]) -> tuple[Manager, list[socket.socket]]:
    """The manager, and the sockets that it gives us, which are ours to close.

    All of it leaves the environment, and no exec passes the sockets on: what we start is not the service.
    """
    watchdog = None
    if environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
        watchdog = _number(environment.get("WATCHDOG_USEC")) / 1e6 or None
    manager = Manager(environment.get("NOTIFY_SOCKET", ""), watchdog)
    sockets = []
    for fd in passed(environment):
        with suppress(OSError):  # what is no socket stays where it is
            sockets.append(socket.socket(fileno=fd))
            os.set_inheritable(fd, False)
    for name in OURS:
        environment.pop(name, None)
    return manager, sockets


def passed(environment: MutableMapping[str, str]) -> range:
    """The descriptors that are meant for this process."""
    if environment.get("LISTEN_PID") != str(os.getpid()):
        return range(0)
    return range(FIRST, FIRST + _number(environment.get("LISTEN_FDS")))


def without(environment: MutableMapping[str, str]) -> dict[str, str]:
    """The environment for a program that is no part of the service."""
    return {key: value for key, value in environment.items() if key not in OURS}


def hand_on(environment: MutableMapping[str, str], former: int) -> None:
    """To be called by the process that becomes the program: what was meant for the process `former` is meant for it.

    LISTEN_PIDFDID names that one, too, in a way that can't be told here before exec; it may be left out.
    """
    for name in MEANT_FOR:
        if environment.get(name) == str(former):
            environment[name] = str(os.getpid())
    environment.pop("LISTEN_PIDFDID", None)


def _number(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() else 0
