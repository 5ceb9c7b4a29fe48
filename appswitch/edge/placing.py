"""UDP sockets made in an app's namespace, bound there to any address (docs/design.md, "UDP")."""

from __future__ import annotations

import errno
import itertools
import secrets
import socket
from collections.abc import Sequence

from appswitch.edge.namespaces import Namespace
from appswitch.host.deaf import deafen, undeafen
from appswitch.host.namespace import IPV6_FREEBIND
from appswitch.model import Address
from appswitch.wire.trap import CONNECTED_PORTS

IP_BIND_ADDRESS_NO_PORT = 24  # linux/in.h; the socket module has no name for it
SO_LOCK_FILTER = 44
SO_SNDBUFFORCE, SO_RCVBUFFORCE = 32, 33
RELAY_BUFFER = 1 << 20  # bytes, doubled by the kernel: what a host sends in a few milliseconds

TRIES = 1024
_ports = itertools.cycle(CONNECTED_PORTS)
for _ in range(secrets.randbelow(len(CONNECTED_PORTS))):
    next(_ports)

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
            deafen(made)
            made.setsockopt(socket.SOL_SOCKET, SO_LOCK_FILTER, 1)
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


async def place_relay(home: Namespace, far: Pair, near: Pair) -> socket.socket:
    """A socket that stands for the far one in the namespace of the near one (edge/flows.py). OSError."""
    made = await _make_shared(home, far)
    try:
        deafen(made)  # bound but not connected, it gets what is meant for others
        made.bind(sockaddr(far[0].version, far))
        made.connect(sockaddr(far[0].version, near))
        undeafen(made)
        enlarge(made)
    except BaseException:
        made.close()
        raise
    return made


async def refuse(home: Namespace, far: Pair, near: Pair) -> None:
    """Has the kernel tell the socket `near` that nobody receives at `far`, as it would had the socket sent there.

    A datagram of the same name does that: the error (ICMP port unreachable, udp(7)) goes to the connected socket.
    OSError.
    """
    if (await home.receivers()).find_any(near, far) is not None:
        return  # somebody does by now
    with await _make_shared(home, near) as made:
        made.bind(sockaddr(near[0].version, near))
        made.sendto(b"", sockaddr(near[0].version, far))


async def _make_shared(home: Namespace, bound: Pair) -> socket.socket:
    """One that may be bound there beside others."""
    made = await home.make_socket(socket.AF_INET6 if bound[0].version == 6 else socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if bound[0].version == 6:
        made.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
    return made


def enlarge(made: socket.socket) -> None:
    """Gives it room for RELAY_BUFFER bytes each way; as an ordinary user, as much as may be (socket(7))."""
    for forced, usual in ((SO_RCVBUFFORCE, socket.SO_RCVBUF), (SO_SNDBUFFORCE, socket.SO_SNDBUF)):
        try:
            made.setsockopt(socket.SOL_SOCKET, forced, RELAY_BUFFER)
        except PermissionError:
            made.setsockopt(socket.SOL_SOCKET, usual, RELAY_BUFFER)


def sockaddr(family: int, pair: Pair) -> tuple[str, int]:
    """As a socket of family 4 or 6 takes it."""
    ip, port = pair
    if family == 6 and ip.version == 4:
        return f"::ffff:{ip}", port
    return str(ip), port
