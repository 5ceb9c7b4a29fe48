"""What a placed UDP socket may do in the namespace that it lives in: send from its own address to its one destination.

Whoever holds a socket of a namespace could connect it elsewhere in there, or name another source with each datagram
(IP_PKTINFO, ip(7)). So each placed socket has a mark of its own (SO_MARK), which its holder can't change, and a routing
rule that admits that mark from there to there; marked sockets have no other route (host/rtnetlink.py, strand_marked).
What doesn't fit is lost.

Rules go with their sockets: whoever is admitted looks whether two that were before still are.
"""

from __future__ import annotations

import errno
import itertools
import socket
from collections import OrderedDict
from typing import NamedTuple

from appswitch.edge.receivers import Receivers
from appswitch.host import rtnetlink
from appswitch.model import Address
from appswitch.wire.inet_diag import DEAF

SO_COOKIE = 57
NO_RULES = (errno.EOPNOTSUPP, errno.EAFNOSUPPORT)  # a kernel without policy routing
LOOKED_AT = 2

Pair = tuple[Address, int]


class Admitted(NamedTuple):
    """A socket, by its cookie, and its way."""

    cookie: int
    source: Pair
    dest: Pair


class Guard:
    """Of one namespace. netlink_socket: a NETLINK_ROUTE socket of it, ours alone."""

    def __init__(self, netlink_socket: socket.socket, receivers: Receivers) -> None:
        self._socket = netlink_socket
        self._receivers = receivers
        self._marks = itertools.count(1)
        self._admitted: OrderedDict[int, Admitted] = OrderedDict()

    def admit(self, placed: socket.socket, source: Pair, dest: Pair, deaf: bool) -> None:
        """Before it is connected. source: its own name; deaf: it is a sender; OSError when it can't be."""
        self._look_after()
        mark = next(self._marks) | (DEAF if deaf else 0)
        placed.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        try:
            rtnetlink.admit(self._socket, mark, source, dest)
        except OSError as error:
            if error.errno not in NO_RULES:
                raise
        else:
            cookie = int.from_bytes(placed.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8), "little")
            self._admitted[mark] = Admitted(cookie, source, dest)

    def _look_after(self) -> None:
        for mark in list(itertools.islice(self._admitted, LOOKED_AT)):
            admitted = self._admitted[mark]
            found = self._receivers.find_any(admitted.dest, admitted.source)
            if found is not None and found.cookie == admitted.cookie:
                self._admitted.move_to_end(mark)
            else:
                del self._admitted[mark]
                rtnetlink.dismiss(self._socket, mark, admitted.source, admitted.dest)
