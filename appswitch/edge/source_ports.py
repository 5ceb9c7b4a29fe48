"""The ports that connections of ours to other hosts come from: those that were used before are used anew.

As shim/relay/source_ports.h says, which has the same for connections by lanes. These are the ones that are announced
and then joined by the relay; a program's own sockets are as the kernel makes them.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path

MOST, OF_ALL = 8192, 4  # a quarter of the ports that there are for connections is ours
RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")  # ip(7); IPv6 has the same


class SourcePorts:
    """The last ones, in the order of their use."""

    def __init__(self) -> None:
        first, last = 32768, 60999
        with suppress(OSError, ValueError):
            first, last = map(int, RANGE.read_text().split())
        self._ports = [0] * max(1, min(MOST, (last - first) // OF_ALL))
        self._next = 0

    def bind(self, made: socket.socket) -> bool:
        """It gets the port that was used longest ago, if there are many. False: the kernel is to choose."""
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # of each, for what it leaves has it, too
        port = self._ports[self._next]
        if not port:
            return False
        try:
            made.bind(("", port))
        except OSError:  # another program has it
            return False
        return True

    def skip(self) -> None:
        """That one is in use still: connect says EADDRNOTAVAIL. Next the kernel is to choose."""
        self._ports[self._next] = 0

    def note(self, made: socket.socket) -> None:
        """It connects; its port is the one that was used last."""
        self._ports[self._next] = made.getsockname()[1]
        self._next = (self._next + 1) % len(self._ports)
