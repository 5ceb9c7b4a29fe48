"""UDP sockets made in an app's namespace, bound there to any address (docs/design.md, "UDP")."""

from __future__ import annotations

import ctypes
import errno
import itertools
import secrets
import socket
import struct
from collections.abc import Sequence

from appswitch.edge.namespaces import Namespace
from appswitch.host.namespace import IPV6_FREEBIND
from appswitch.model import Address
from appswitch.wire.trap import CONNECTED_PORTS

IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h; the socket module has no name for it
SO_ATTACH_FILTER, SO_LOCK_FILTER = 26, 44

TRIES = 1024
_ports = itertools.cycle(CONNECTED_PORTS)
for _ in range(secrets.randbelow(len(CONNECTED_PORTS))):
    next(_ports)

# struct sock_filter: BPF_RET | BPF_K, 0 bytes of each datagram (linux/filter.h)
_NOTHING_PASSES = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0))

Pair = tuple[Address, int]


async def place(
    home: Namespace,
    family: int,
    bound: Pair | None = None,
    to: Pair | None = None,
    deaf: bool = False,
    options: Sequence[tuple[int, int]] = ((socket.SOL_SOCKET, socket.SO_REUSEADDR),),
) -> socket.socket:
    """A UDP socket of a namespace, bound and connected as said; it can send to there only (edge/guard.py).

    family: 4 or 6; deaf: it only sends; options: (level, name) of those that are set before it is bound. OSError.
    """
    guard = await home.guard()
    made = await home.make_socket(socket.AF_INET6 if family == 6 else socket.AF_INET, socket.SOCK_DGRAM)
    try:  # from here on nothing waits: bound but not connected, it would be taken for one that hears everybody
        for level, name in options:
            made.setsockopt(level, name, 1)
        if family == 6:  # an address that is local by its route only (ipv6(7))
            made.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
        if deaf:
            _deafen(made)
        if bound is not None:
            _bind(made, family, bound)
        if bound is not None and to is not None:
            guard.admit(made, (bound[0], made.getsockname()[1]), to, deaf)
        if to is not None:
            made.connect(sockaddr(family, to))
        if family == 6:
            made.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 0)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # The mark of SO_REUSEADDR being ours, not the program's (shim/datagrams.c).
        made.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    except BaseException:
        made.close()
        raise
    return made


def _bind(made: socket.socket, family: int, bound: Pair) -> None:
    """Port 0: one of CONNECTED_PORTS that nobody has there.

    It is bound for good (bind(2) with a port): else its holder could leave it, and take a port of the receiver's.
    """
    if bound[1]:
        made.bind(sockaddr(family, bound))
        return
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    for port in itertools.islice(_ports, TRIES):
        try:
            made.bind(sockaddr(family, (bound[0], port)))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            return
    raise OSError(errno.EAGAIN, "no port is free")


def _deafen(sender: socket.socket) -> None:
    """It gets nothing."""
    sender.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", 1, ctypes.addressof(_NOTHING_PASSES)))
    sender.setsockopt(socket.SOL_SOCKET, SO_LOCK_FILTER, 1)


def sockaddr(family: int, pair: Pair) -> tuple[str, int]:
    """As a socket of family 4 or 6 takes it."""
    ip, port = pair
    if family == 6 and ip.version == 4:
        return f"::ffff:{ip}", port
    return str(ip), port
