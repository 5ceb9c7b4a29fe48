"""A network namespace for an app: empty but for lo, where every address is local (DESIGN 3.6).

As root one unshare; as an ordinary user inside a user namespace in which the user is who they are, so that files keep
their owner (user_namespaces(7)). Capabilities in that namespace are gone with the exec of the program.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
from pathlib import Path

from appswitch.host.cookies import netns_of

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000

DNS_PORT = 53
NETLINK_SOCK_DIAG = 4
IPV6_FREEBIND = 78  # linux/in6.h; the socket module has no name for it

_libc = ctypes.CDLL(None, use_errno=True)


class NamespaceForbidden(Exception):  # noqa: N818 - the kernel's verdict
    """The kernel doesn't let this user make a network namespace."""


def enter_new_namespace() -> None:
    """Moves this process into a network namespace of its own. NamespaceForbidden says why it can't."""
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0 and _unshare(CLONE_NEWNET) == 0:
        return
    error = _unshare(CLONE_NEWUSER | CLONE_NEWNET)
    if error == errno.ENOSPC:
        raise NamespaceForbidden(
            "no more namespaces may be made (max_user_namespaces and max_net_namespaces in /proc/sys/user)"
        )
    if error:
        raise NamespaceForbidden(f"the kernel forbids network namespaces for user {uid}: {os.strerror(error)}")
    try:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    except OSError as failed:  # AppArmor lets unshare pass and takes the capabilities away
        raise NamespaceForbidden(f"the kernel forbids user namespaces for user {uid}: {failed.strerror}") from None


def join(pid: int) -> None:
    """Moves this process into the network namespace of another one. OSError: it can't, or there is no such process."""
    other, own = Path(f"/proc/{pid}/ns/user"), Path("/proc/self/ns/user")
    flags = CLONE_NEWNET if other.readlink() == own.readlink() else CLONE_NEWUSER | CLONE_NEWNET
    fd = os.pidfd_open(pid)
    try:
        if _libc.setns(fd, flags):
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
    finally:
        os.close(fd)


def cookie() -> int:
    """The number of this process's network namespace, never used again (Linux 5.14)."""
    with socket.socket(socket.AF_UNIX) as any_socket:
        return netns_of(any_socket)


def allow_low_ports() -> None:
    """Ports below 1024 are as good as any in a namespace of one's own (ip(7), ip_unprivileged_port_start)."""
    # A read-only /proc: the app's plain UDP sockets keep the limit.
    with contextlib.suppress(OSError):
        Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").write_text("0")


def open_dns_sockets() -> list[socket.socket]:
    """A UDP and a TCP socket on port 53 of this namespace, on every address of both IP versions."""
    sockets = []
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        try:
            opened = socket.socket(socket.AF_INET6, kind)
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            any_address = "::"
        except OSError as error:
            if error.errno != errno.EAFNOSUPPORT:
                raise
            opened = socket.socket(socket.AF_INET, kind)
            any_address = "0.0.0.0"
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if kind == socket.SOCK_DGRAM:
            if opened.family == socket.AF_INET6:
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
                # Answers come from the name server's address, which is local by its route only, not lo's own.
                opened.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
            else:
                opened.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO
        opened.bind((any_address, DNS_PORT))
        if kind == socket.SOCK_STREAM:
            opened.listen(64)
        sockets.append(opened)
    return sockets


def open_diag_socket() -> socket.socket:
    """Asks the kernel about the sockets of this namespace, whoever holds it (sock_diag(7))."""
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG)


def _unshare(flags: int) -> int:
    return 0 if _libc.unshare(flags) == 0 else ctypes.get_errno()
