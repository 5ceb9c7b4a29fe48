"""One trap handler takes over from another that serves: `serve --take-over`.

The newer one asks on the control socket (`take-over` of wire/control.py) and is given what the running one serves, and
its lock: none of them is ever closed, so who calls meanwhile waits in a queue. Then it makes ready all that can fail,
while the other one still serves; says `GO`; has that confirmed; and waits until the other has finished what was under
way and has closed the connection, which is the last thing that it does. From there on all is as after a restart.

When the newer one fails before `GO`, the running one goes on as if nobody had asked.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from appswitch.errors import AppSwitchError
from appswitch.host.control_client import ControlClient, HandlerGoneError

GO = b"g"
"""What each says to the other: the one that it is ready to serve, the other that it goes."""

ENDS_WITHIN = 10.0  # seconds

Name = str | tuple[str, int]
"""Of a socket: a path, or an address and a port."""


class Handed:
    """Sockets that were open before us, until somebody takes them. made: paths that whoever serves them removes."""

    def __init__(self, sockets: Iterable[socket.socket] = (), made: Iterable[str] = ()) -> None:
        self.made = frozenset(made)
        self.is_released = False
        """Whether nobody else serves them any more."""
        self._sockets = list(sockets)

    def take(self, kind: socket.SocketKind, name: Name) -> socket.socket | None:
        """That of this type which is bound there, non-blocking; from now on the caller's. None: there is none."""
        for each in self._sockets:
            if each.type == kind and _name_of(each) == name:
                self._sockets.remove(each)
                each.setblocking(False)
                return each
        return None

    def close(self) -> None:
        """Those that nobody has taken."""
        for each in self._sockets:
            each.close()
        self._sockets.clear()


def _name_of(bound: socket.socket) -> Name:
    name = bound.getsockname()
    return name if isinstance(name, str) else (name[0], name[1])


class Predecessor:
    """The trap handler that serves, once it has handed over its sockets. It serves until `release`."""

    def __init__(self, connection: socket.socket, facts: dict[str, Any], fds: list[int]) -> None:
        """facts: as control.TakeOver has them; fds: the lock, then sockets."""
        self.pid: int = facts["pid"]
        self.lock = fds[0]
        self.handed = Handed([socket.socket(fileno=fd) for fd in fds[1:]], facts["made"])
        self._connection = connection

    def release(self) -> None:
        """Has it finish, and go; what nobody has taken of it is closed.

        AppSwitchError: it doesn't; then nobody has been taken over from.
        """
        connection = self._connection
        connection.settimeout(ENDS_WITHIN)
        try:
            connection.sendall(GO)
            if connection.recv(1) != GO:
                raise ConnectionError
        except OSError:
            raise AppSwitchError(
                "not-taken-over", "the trap handler that runs here has ended, or lets another one take over, just now",
                "look whether one serves, and try again",
            ) from None  # fmt: skip
        try:
            connection.recv(1)  # its end
        except TimeoutError:
            hint = f"it is process {self.pid}: end it with kill -9, and its apps are taken back by the next `serve`"
            reason = f"the trap handler that runs here doesn't end within {ENDS_WITHIN:g} s"
            raise AppSwitchError("not-taken-over", reason, hint) from None
        except OSError:
            pass
        self.handed.is_released = True
        self.close()

    def close(self) -> None:
        """What is left of it."""
        self.handed.close()
        self._connection.close()


def ask(trap: Path, node: str, state_dir: Path, state_version: int) -> Predecessor | None:
    """The trap handler that serves there; None: nobody does. AppSwitchError: it can't be taken over from by us.

    node, state_dir, state_version: ours, which have to be its own, for we are to know what it knows.
    """
    try:
        client = ControlClient(trap)
    except PermissionError:
        raise AppSwitchError("not-yours", f"the trap handler at {trap} is another user's") from None
    except OSError:
        return None
    wanted = {"node": node, "state_dir": str(state_dir.absolute()), "state_version": state_version}
    try:
        client.set_timeout(ENDS_WITHIN)
        facts, fds = client.call_for_sockets("take-over", wanted)
    except (HandlerGoneError, TimeoutError) as error:
        client.close()
        raise AppSwitchError("not-taken-over", f"the trap handler at {trap} doesn't hand over: {error}") from None
    except BaseException:
        client.close()
        raise
    return Predecessor(client.detach(), facts, fds)


class Successor:
    """Who takes our place, once somebody does.

    offered: descriptors of what we serve, the lock first; made: paths of ours, which are removed unless it has come.
    """

    def __init__(self) -> None:
        self.offered: list[int] = []
        self.made: list[str] = []
        self._connection: socket.socket | None = None

    @property
    def has_come(self) -> bool:
        """From then on nothing is taken away that it serves, or told to others as our end."""
        return self._connection is not None

    def come(self, connection: int) -> None:
        """The connection is closed by `close` only, whatever becomes of `connection`. OSError."""
        self._connection = socket.socket(fileno=os.dup(connection))
        self._connection.setblocking(False)
        self._connection.send(GO)

    def remove(self, path: Path) -> None:
        """A socket's file, unless it serves that."""
        if not self.has_come:
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """The last thing that we do."""
        if self._connection is not None:
            self._connection.close()
