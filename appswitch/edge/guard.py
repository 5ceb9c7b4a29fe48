"""What a placed UDP socket may do in the namespace that it lives in: send from its own address to its one destination.

Whoever holds a socket of a namespace could connect it elsewhere in there, or name another source with each datagram
(IP_PKTINFO, ip(7)). So each placed socket has a mark of its way (SO_MARK), which its holder can't change, and a routing
rule that admits that mark from there to there; marked sockets have no other route (host/rtnetlink.py, strand_marked).
What doesn't fit is lost.

Sockets with one way (those of a server's workers, each with a sender) share a mark, but for the bit that says which is
deaf, and a rule: they can't be told apart from outside. Rules go with the last of them: whoever is admitted looks
whether two that were before still are.
"""

from __future__ import annotations

import errno
import itertools
import secrets
import socket
from collections import OrderedDict

from appswitch.edge.receivers import Receivers
from appswitch.host import rtnetlink
from appswitch.model import Address
from appswitch.wire.inet_diag import DEAF

NO_RULES = (errno.EOPNOTSUPP, errno.EAFNOSUPPORT)  # a kernel without policy routing
LOOKED_AT = 2

Pair = tuple[Address, int]


class Guard:
    """Of one namespace. netlink_socket: a NETLINK_ROUTE socket of it, ours alone."""

    def __init__(self, netlink_socket: socket.socket, receivers: Receivers) -> None:
        self._socket = netlink_socket
        self._receivers = receivers
        self._marks = itertools.count(1 + secrets.randbelow(DEAF // 2))  # not those of our predecessor's sockets
        self._admitted: OrderedDict[tuple[Pair, Pair], int] = OrderedDict()
        """(source, dest) -> the mark of those that may send from there to there."""

    def admit(self, placed: socket.socket, source: Pair, dest: Pair, deaf: bool) -> None:
        """Before it is connected. source: its own name; deaf: it is a sender; OSError when it can't be."""
        self._look_after()
        mark = self._admitted.get((source, dest)) or next(self._marks)
        placed.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark | (DEAF if deaf else 0))
        if (source, dest) in self._admitted:
            return
        try:
            rtnetlink.admit(self._socket, mark, source, dest, but=DEAF)
        except OSError as error:
            if error.errno not in NO_RULES:
                raise
        else:
            self._admitted[source, dest] = mark

    def _look_after(self) -> None:
        for source, dest in list(itertools.islice(self._admitted, LOOKED_AT)):
            mark = self._admitted[source, dest]
            found = self._receivers.find_any(dest, source)
            if found is not None and found.mark & ~DEAF == mark:
                self._admitted.move_to_end((source, dest))
            else:
                del self._admitted[source, dest]
                rtnetlink.dismiss(self._socket, mark, source, dest, but=DEAF)
