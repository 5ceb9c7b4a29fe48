"""What we have of an app's network namespace: sockets that `spawn` made inside and passed to us.

- DNS: a UDP and a TCP socket on port 53, where the app's resolver finds us (edge/dns.py).
- diag: a netlink socket that tells of every socket in there (sock_diag(7)), whoever holds it.
- maker: the app's keeper, which makes further sockets inside on demand (host/maker.py).
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Sequence

import trio

from appswitch.edge.diag import Diag
from appswitch.errors import AppSwitchError

MOST_SOCKETS = 4


class Namespace:
    """The sockets, ours to close."""

    def __init__(self, sockets: Sequence[socket.socket]) -> None:
        """AppSwitchError `bad-request` when a socket among them is of no use; then all are closed."""
        self.dns: list[socket.socket] = []
        self.diag: Diag | None = None
        self._maker: socket.socket | None = None
        self._asking = trio.Lock()
        self._all = list(sockets)
        for each in sockets:
            if each.family == socket.AF_NETLINK:
                self.diag = Diag(each)
            elif each.family == socket.AF_UNIX and each.type == socket.SOCK_SEQPACKET:
                each.setblocking(False)
                self._maker = each
            elif _serves_dns(each):
                self.dns.append(each)
            else:
                self.close()
                raise AppSwitchError("bad-request", "the sockets that came along are of no use")

    async def make_socket(self, family: int, kind: int) -> socket.socket:
        """A new socket of the namespace, neither bound nor connected. OSError when its keeper can't make one."""
        if self._maker is None:
            raise OSError(errno.ENETDOWN, "the app's keeper has gone")
        request = bytes([family, kind])
        async with self._asking:
            self._maker.send(request)
            with trio.CancelScope(shield=True):  # else the next one would get this answer
                await trio.lowlevel.wait_readable(self._maker)
            answer, fds, _, _ = socket.recv_fds(self._maker, 4, 1)  # takes no notice of flags
        made = [socket.socket(fileno=fd) for fd in fds]
        if answer != request or not made:
            error = int.from_bytes(answer, "little") if len(answer) == 4 else errno.ENETDOWN
            raise OSError(error, os.strerror(error))
        made[0].set_inheritable(False)
        return made[0]

    def close(self) -> None:
        """Closes our descriptors; the namespace lives while anything in it does."""
        for each in self._all:
            each.close()


def adopt(fds: Sequence[int]) -> Namespace:
    """The namespace from descriptors that came along with `spawn`, which stay the caller's.

    AppSwitchError `bad-request` when they are anything else.
    """
    sockets: list[socket.socket] = []
    for fd in fds:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            for each in sockets:
                each.close()
            raise AppSwitchError("bad-request", "what came along is no socket")
        sockets.append(socket.socket(fileno=os.dup(fd)))
    return Namespace(sockets)


def _serves_dns(passed: socket.socket) -> bool:
    if passed.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    listening = passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    return passed.type == socket.SOCK_DGRAM or (passed.type == socket.SOCK_STREAM and bool(listening))
