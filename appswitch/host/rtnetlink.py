"""The few rtnetlink messages that set up an app's namespace (rtnetlink(7); linux/rtnetlink.h).

By hand, because `spawn` is to start quickly: pyroute2 takes 0.25 s to import.
"""

from __future__ import annotations

import errno
import os
import socket
import struct

_RTM_NEWLINK, _RTM_NEWADDR, _RTM_NEWROUTE = 16, 20, 24
_REQUEST_ACK = 0x1 | 0x4
_CREATE_REPLACE = 0x400 | 0x100
_IFF_UP = 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_IFA_F_NODAD = 0x02
_RTA_OIF, _RTA_PREFSRC = 4, 7
_TABLE_LOCAL, _PROTO_BOOT, _SCOPE_HOST, _TYPE_LOCAL = 255, 3, 254, 2
_LOOPBACK = 1  # lo's index in every namespace


def make_everything_local(addresses: list[str]) -> None:
    """In this network namespace: lo up, every IP address local to it, and `addresses` shown as lo's own.

    What leaves a socket that has no address of its own comes from the one of `addresses` that is of the IP version.
    OSError when the kernel refuses; no IPv6 in the kernel is no error.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.bind((0, 0))
        link = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, _LOOPBACK, _IFF_UP, _IFF_UP)
        _ask(netlink, _RTM_NEWLINK, 0, link)
        for address in addresses:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            packed = socket.inet_pton(family, address)
            body = struct.pack("=BBBBi", family, len(packed) * 8, _IFA_F_NODAD, _SCOPE_HOST, _LOOPBACK)
            body += _attribute(_IFA_LOCAL, packed) + _attribute(_IFA_ADDRESS, packed)
            _ask(netlink, _RTM_NEWADDR, _CREATE_REPLACE, body, optional=family == socket.AF_INET6)
        for family in (socket.AF_INET, socket.AF_INET6):
            route = struct.pack(
                "=BBBBBBBBI", family, 0, 0, 0, _TABLE_LOCAL, _PROTO_BOOT, _SCOPE_HOST, _TYPE_LOCAL, 0
            ) + _attribute(_RTA_OIF, struct.pack("=i", _LOOPBACK))
            for address in addresses:
                # Else a datagram to a local address would come from that same address (ip_route_output_key_hash_rcu).
                if (":" in address) == (family == socket.AF_INET6):
                    route += _attribute(_RTA_PREFSRC, socket.inet_pton(family, address))
            _ask(netlink, _RTM_NEWROUTE, _CREATE_REPLACE, route, optional=family == socket.AF_INET6)


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _ask(netlink: socket.socket, kind: int, flags: int, body: bytes, optional: bool = False) -> None:
    netlink.send(struct.pack("=IHHII", 16 + len(body), kind, _REQUEST_ACK | flags, 1, 0) + body)
    error = -int.from_bytes(netlink.recv(65536)[16:20], "little", signed=True)
    if error and not (optional and error in (errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.EACCES, errno.EPERM)):
        raise OSError(error, f"rtnetlink request {kind}: {os.strerror(error)}")
