"""Which UDP socket of an app's namespace would get a datagram: asked of the kernel, which knows (wire/inet_diag.py).

It takes 5 us, and nothing has to be remembered, or reported, when sockets come and go.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Set
from ipaddress import IPv4Address, IPv6Address

from appswitch.model import Address, Listener
from appswitch.wire import inet_diag, netlink
from appswitch.wire.inet_diag import DEAF, UdpSocket

ROOM = 4096  # bytes: an answer is one socket


class Receivers:
    """A netlink socket of the namespace, ours alone. ours: the cookies of sockets that don't count."""

    def __init__(self, netlink_socket: socket.socket, ours: Set[int] = frozenset()) -> None:
        self._socket = netlink_socket
        self._ours = ours
        self._sequence = 0

    def find(self, source: tuple[Address, int], dest: tuple[Address, int]) -> UdpSocket | None:
        """The socket that gets a datagram from `source` to `dest`, or would if ours weren't there.

        OSError: the kernel can't be asked.
        """
        found = self._ask(source, dest)
        if found is not None and found.cookie in self._ours:  # a relay (edge/flows.py) is in front
            found = self.find_any((_ANY[dest[0].version], 0), dest)
        return None if found is None or found.mark & DEAF else found

    def find_any(self, source: tuple[Address, int], dest: tuple[Address, int]) -> UdpSocket | None:
        """The socket that gets it, if it isn't ours; it may be a sender, which gets nothing all the same."""
        found = self._ask(source, dest)
        return None if found is None or found.cookie in self._ours else found

    def _ask(self, source: tuple[Address, int], dest: tuple[Address, int]) -> UdpSocket | None:
        self._sequence = self._sequence + 1 & 0xFFFFFFFF
        self._socket.send(inet_diag.receiver_request(self._sequence, source, dest), socket.MSG_DONTWAIT)
        while True:  # the kernel has answered before send returns (netlink_rcv_skb)
            for message in netlink.messages(self._socket.recv(ROOM, socket.MSG_DONTWAIT)):
                if message.sequence != self._sequence:
                    continue
                if message.kind != netlink.ERROR:
                    return inet_diag.decode(message.body)
                error = netlink.error_of(message)
                if error == errno.ENOENT:
                    return None
                raise OSError(error, f"sock_diag: {os.strerror(error)}")

    def find_bound(self, ip: Address, port: int) -> UdpSocket | None:
        """The app's socket that takes datagrams to (ip, port) from anyone."""
        return self.find((_ANY[ip.version], 0), (ip, port))

    def has(self, listener: Listener) -> bool:
        """Whether somebody receives where `listener` has been."""
        ips = [listener.ip]
        if listener.ip.is_unspecified:
            ips = [listener.app.source(version) for version in listener.versions]
        return any(self.find_bound(ip, listener.port) is not None for ip in ips)


_ANY: dict[int, Address] = {4: IPv4Address(0), 6: IPv6Address(0)}
