"""The few rtnetlink messages that set up an app's namespace (rtnetlink(7); linux/rtnetlink.h).

By hand, because `spawn` is to start quickly: pyroute2 takes 0.25 s to import.
"""

from __future__ import annotations

import errno
import os
import socket
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

    Address = IPv4Address | IPv6Address
    Pair = tuple[Address, int]

_RTM_NEWLINK, _RTM_NEWADDR, _RTM_NEWROUTE = 16, 20, 24
_REQUEST_ACK = 0x1 | 0x4
_CREATE_REPLACE = 0x400 | 0x100
_IFF_UP = 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_IFA_F_NODAD = 0x02
_RTA_OIF, _RTA_PREFSRC = 4, 7
_TABLE_LOCAL, _PROTO_BOOT, _SCOPE_HOST, _TYPE_LOCAL = 255, 3, 254, 2
_LOOPBACK = 1  # lo's index in every namespace
_RTM_NEWRULE, _RTM_DELRULE = 32, 33
_EXCLUSIVE = 0x400 | 0x200  # NLM_F_CREATE | NLM_F_EXCL
_TO_TABLE = 1  # FR_ACT_TO_TBL
_FRA_DST, _FRA_SRC, _FRA_PRIORITY, _FRA_FWMARK, _FRA_FWMASK = 1, 2, 6, 10, 16
_FRA_IP_PROTO, _FRA_SPORT_RANGE, _FRA_DPORT_RANGE = 22, 23, 24
_UNMARKED, _ADMITTED, _STRANDED = 1, 2, 3  # priorities of rules; the kernel's own for the local table is 0
_TABLE_STRANDED, _SCOPE_LINK, _TYPE_MULTICAST = 77, 253, 5


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


def strand_marked() -> None:
    """In this network namespace a socket with a mark (SO_MARK, socket(7)) has no route, unless it is admitted.

    The rule `from all lookup local`, the first of all, becomes `from all fwmark 0 lookup local` (ip-rule(8)). What is
    left would have no route; but where a sender names the device, Linux takes an IPv4 address without a route for one
    that is on the link, and so delivers it over lo (ip_route_output_key_hash_rcu in net/ipv4/route.c). So there is a
    route, of a multicast kind: over lo that delivers to members of a group, and no unicast address is one.

    A kernel without policy routing is no error: marks mean nothing then.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        for family in (socket.AF_INET, socket.AF_INET6):
            _ask(netlink, _RTM_NEWRULE, _EXCLUSIVE, _rule(family, _UNMARKED, _mark(0)), optional=True)
            _ask(netlink, _RTM_DELRULE, 0, _rule(family, 0), optional=True)
        nowhere = struct.pack(
            "=BBBBBBBBI", socket.AF_INET, 0, 0, 0, _TABLE_STRANDED, _PROTO_BOOT, _SCOPE_LINK, _TYPE_MULTICAST, 0
        ) + _attribute(_RTA_OIF, struct.pack("=i", _LOOPBACK))
        _ask(netlink, _RTM_NEWROUTE, _CREATE_REPLACE, nowhere, optional=True)
        stranded = _rule(socket.AF_INET, _STRANDED, table=_TABLE_STRANDED)
        _ask(netlink, _RTM_NEWRULE, _EXCLUSIVE, stranded, optional=True)


def admit(netlink: socket.socket, mark: int, source: Pair, dest: Pair, but: int = 0) -> None:
    """A UDP socket with this mark has a route from `source` to `dest`.

    netlink: of the namespace; but: the bits of the mark that don't matter; OSError.
    """
    _ask(netlink, _RTM_NEWRULE, _EXCLUSIVE, _admission(mark, source, dest, but))


def dismiss(netlink: socket.socket, mark: int, source: Pair, dest: Pair, but: int = 0) -> None:
    """Takes back what `admit` gave. OSError."""
    _ask(netlink, _RTM_DELRULE, 0, _admission(mark, source, dest, but))


def _admission(mark: int, source: Pair, dest: Pair, but: int) -> bytes:
    family = socket.AF_INET if dest[0].version == 4 else socket.AF_INET6
    body = _mark(mark, but) + _attribute(_FRA_SRC, source[0].packed) + _attribute(_FRA_DST, dest[0].packed)
    body += _attribute(_FRA_IP_PROTO, bytes([socket.IPPROTO_UDP]))
    for kind, port in ((_FRA_SPORT_RANGE, source[1]), (_FRA_DPORT_RANGE, dest[1])):
        body += _attribute(kind, struct.pack("=HH", port, port))
    return _rule(family, _ADMITTED, body, length=len(dest[0].packed) * 8)


def _rule(family: int, priority: int, attributes: bytes = b"", length: int = 0, table: int = _TABLE_LOCAL) -> bytes:
    """A struct fib_rule_hdr that leads to `table`. length: bits of the addresses among the attributes."""
    head = struct.pack("=BBBBBBBBI", family, length, length, 0, table, 0, 0, _TO_TABLE, 0)
    return head + _attribute(_FRA_PRIORITY, struct.pack("=I", priority)) + attributes


def _mark(mark: int, but: int = 0) -> bytes:
    return _attribute(_FRA_FWMARK, struct.pack("=I", mark)) + _attribute(
        _FRA_FWMASK, struct.pack("=I", 0xFFFFFFFF ^ but)
    )


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _ask(netlink: socket.socket, kind: int, flags: int, body: bytes, optional: bool = False) -> None:
    netlink.send(struct.pack("=IHHII", 16 + len(body), kind, _REQUEST_ACK | flags, 1, 0) + body)
    error = -int.from_bytes(netlink.recv(65536)[16:20], "little", signed=True)
    if error and not (optional and error in (errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.EACCES, errno.EPERM)):
        raise OSError(error, f"rtnetlink request {kind}: {os.strerror(error)}")
