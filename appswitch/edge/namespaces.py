"""What we have of an app's network namespace: sockets that `spawn` made inside and passed to us.

- DNS: a UDP and a TCP socket on port 53, where the app's resolver finds us (edge/dns.py).
- diag: a netlink socket that tells of every socket in there (sock_diag(7)), whoever holds it.
- maker: the app's keeper, which makes further sockets inside on demand (host/maker.py).
- receivers: tells which UDP socket of it would get a datagram; made when it is first needed.
- guard: says where others' sockets in there may send to; made when it is first needed.
"""

from __future__ import annotations

import errno
import os
import resource
import socket
import stat
from collections.abc import Sequence

import trio

from appswitch.edge.diag import Diag
from appswitch.edge.guard import Guard
from appswitch.edge.receivers import Receivers
from appswitch.errors import AppSwitchError
from appswitch.host.cookies import cookie_of, netns_of
from appswitch.host.maker import RELEASE
from appswitch.host.namespace import NETLINK_SOCK_DIAG
from appswitch.model import Address, Listener

Pair = tuple[Address, int]

MOST_SOCKETS = 4
SPARE = 32  # descriptors that are kept for programs that run: a listener takes one, each thread that calls another
PATIENCE = 1.0  # seconds that a keeper may take: it may be stopped


class Namespace:
    """The sockets, ours to close."""

    def __init__(self, sockets: Sequence[socket.socket]) -> None:
        """AppSwitchError `bad-request` when a socket among them is of no use; then all are closed."""
        self.dns: list[socket.socket] = []
        self.diag: Diag | None = None
        self._maker: socket.socket | None = None
        self._asking = trio.Lock()
        self._owed = 0
        self._receivers: Receivers | None = None
        self._guard: Guard | None = None
        self.ours: set[int] = set()
        self._all = list(sockets)
        for each in sockets:
            if each.family == socket.AF_NETLINK:
                self.diag = Diag(each)
            elif each.family == socket.AF_UNIX and each.type == socket.SOCK_SEQPACKET:
                each.setblocking(False)
                self._maker = each
            elif _serves_dns(each):
                self.dns.append(each)
                self.ours.add(cookie_of(each))
            else:
                self.close()
                raise AppSwitchError("bad-request", "the sockets that came along are of no use")

    async def make_socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A new socket of the namespace, neither bound nor connected. OSError when its keeper can't make one."""
        request = bytes([family, kind, protocol])
        answer, made = await self._ask(request)
        if answer != request or not made:
            error = int.from_bytes(answer, "little") if len(answer) == 4 else errno.ENETDOWN
            raise OSError(error, os.strerror(error))
        made[0].set_inheritable(False)
        if not self._is_as_asked(made[0], family, kind, protocol):
            made[0].close()
            raise OSError(errno.EPROTO, "the app's keeper gives something else")
        return made[0]

    async def release_dns(self) -> None:
        """Closes the keeper's descriptor of the DNS server's UDP socket. OSError as make_socket."""
        await self._ask(RELEASE)

    async def _ask(self, request: bytes) -> tuple[bytes, list[socket.socket]]:
        if self._maker is None:
            raise OSError(errno.ENETDOWN, "the app's keeper has gone")
        async with self._asking:
            self._maker.send(request)
            self._owed += 1
            try:
                with trio.move_on_after(PATIENCE, shield=True):
                    while self._owed:  # what was given up before comes first
                        await trio.lowlevel.wait_readable(self._maker)
                        answer, fds, _, _ = socket.recv_fds(self._maker, 4, 1)  # takes no notice of flags
                        made = [socket.socket(fileno=fd) for fd in fds]
                        self._owed -= 1
                        if self._owed:
                            for each in made:
                                each.close()
            except trio.ClosedResourceError:
                raise OSError(errno.ENETDOWN, "the app has ended") from None
            if self._owed:
                raise OSError(errno.ETIMEDOUT, "the app's keeper doesn't answer")
        return answer, made

    def _is_as_asked(self, made: socket.socket, family: int, kind: int, protocol: int) -> bool:
        wanted = protocol if protocol or family == socket.AF_NETLINK else made.proto  # 0: the usual one of the type
        return (made.family, made.type, made.proto) == (family, kind, wanted) and netns_of(made) == self.netns

    async def receivers(self) -> Receivers:
        """Which UDP sockets there are, our own left out. OSError as make_socket."""
        if self._receivers is None:
            netlink = await self.make_socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG)
            if self._receivers is None:
                self._all.append(netlink)
                self._receivers = Receivers(netlink, self.ours)
            else:  # another task was first
                netlink.close()
        return self._receivers

    async def guard(self) -> Guard:
        """Says where the sockets may send that others have in here. OSError as make_socket."""
        if self._guard is None:
            receivers = await self.receivers()
            netlink = await self.make_socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
            if self._guard is None:
                self._all.append(netlink)
                self._guard = Guard(netlink, receivers)
            else:  # another task was first
                netlink.close()
        return self._guard

    def adopt_dns(self, made: socket.socket) -> None:
        """One more socket of our DNS server."""
        self._all.append(made)
        self.ours.add(cookie_of(made))

    def drop(self, each: socket.socket) -> None:
        """Closes one of ours."""
        self._all.remove(each)
        each.close()

    def receives(self, listener: Listener) -> bool:
        """Whether what an app has bound is still there to receive datagrams."""
        return self._receivers is not None and self._receivers.has(listener)

    def receives_from(self, source: Pair, dest: Pair) -> bool:
        """Whether there is a socket that gets datagrams from `source` to `dest`. OSError: the app has ended."""
        return self._receivers is not None and self._receivers.find(source, dest) is not None

    @property
    def netns(self) -> int:
        """The namespace's cookie."""
        return netns_of(self._all[0])

    def close(self) -> None:
        """Closes our descriptors; the namespace lives while anything in it does."""
        if self._maker is not None:
            trio.lowlevel.notify_closing(self._maker)
            self._maker = None
        for each in self._all:
            each.close()


def check_room(any_fd: int) -> None:
    """AppSwitchError `no-descriptors` while another app would take the last ones from those that there are."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        least = os.dup(any_fd)  # the lowest that is free
        os.close(least)
    except OSError:
        least = limit
    if least > limit - SPARE:
        reason = f"the trap handler has no room for another app: it may have {limit} descriptors, and uses nearly all"
        raise AppSwitchError("no-descriptors", reason, "raise its limit: LimitNOFILE= of its unit, or `ulimit -Hn`")


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
