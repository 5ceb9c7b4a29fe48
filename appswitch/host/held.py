"""TCP connections that are held: the client's socket goes on connecting until somebody says what comes of it.

A program that leaves by a gateway is to see EINPROGRESS, or to wait in connect, and in the end what the gateway's own
connect has come to. So its socket connects to a listener that hears no SYN (host/deaf.py), in a namespace where
nobody else is (host/sealed.py). When the gateway is connected, a second socket takes the listener's address and
connects to the client: a simultaneous open (RFC 9293 3.5), and both stand at once. When the gateway has failed, the
client is sent what a network would send: a reset, or an ICMP error. A time-out it comes to by itself.

The listener's port isn't shared, so nobody else in there can take a client's place at it; that the second socket can
have it, and what the client's sequence number is, without which no answer counts, is TCP_REPAIR's doing, for who has
CAP_NET_ADMIN in there.
"""

from __future__ import annotations

import errno
import random
import socket
import struct
from contextlib import suppress
from typing import NamedTuple

from appswitch.host.deaf import deafen

# linux/tcp.h; the socket module has no names for them
TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ = 19, 20, 21
ON, OFF = 1, -1  # TCP_REPAIR_OFF_NO_WP: without a window probe
TCP_SEND_QUEUE = 2

RST_ACK = 0x14
ICMP_UNREACH = 3
UNREACHABLE = {errno.ENETUNREACH: 0, errno.EHOSTUNREACH: 1}  # ICMP codes (icmp_err_convert in net/ipv4/icmp.c)

_HELD = struct.Struct("!4sH4sI")


class Held(NamedTuple):
    """A client's address, the one that it connects to (IPv4, packed), and its sequence number after the SYN."""

    client_ip: bytes
    client_port: int
    dest_ip: bytes
    seq: int

    def pack(self) -> bytes:
        """For who is to say later what comes of it."""
        return _HELD.pack(*self)

    @classmethod
    def unpack(cls, packed: bytes) -> Held:
        """ValueError when it is none."""
        try:
            return cls(*_HELD.unpack(packed))
        except struct.error as error:
            raise ValueError(str(error)) from None


class Holder:
    """Holds them, in the namespace that it is in. OSError EPERM without the capabilities."""

    def __init__(self) -> None:
        self._raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._deaf = socket.socket(socket.AF_INET)
        deafen(self._deaf)
        self._deaf.bind(("0.0.0.0", 0))
        self._deaf.listen(1)
        self._port: int = self._deaf.getsockname()[1]

    def hold(self, family: int) -> tuple[Held, socket.socket]:
        """A client's socket of AF_INET or AF_INET6, non-blocking, its connect under way. OSError."""
        # An address that nobody has connected to yet, so there are always ports.
        dest = f"127.{random.randrange(256)}.{random.randrange(256)}.{random.randrange(1, 255)}"
        client = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            with suppress(BlockingIOError):
                client.connect((f"::ffff:{dest}" if family == socket.AF_INET6 else dest, self._port))
            client.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, ON)
            client.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_SEND_QUEUE)
            seq = client.getsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ) & 0xFFFFFFFF
            client.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, OFF)
            ip, port = client.getsockname()[:2]
        except BaseException:
            client.close()
            raise
        return Held(socket.inet_aton(ip.removeprefix("::ffff:")), port, socket.inet_aton(dest), seq), client

    def meet(self, held: Held) -> socket.socket:
        """The other end, non-blocking: it connects to the client's, which refuses when that is closed. OSError.

        Nothing waits here: the client's holder could let it.
        """
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            made.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, ON)
            made.bind((socket.inet_ntoa(held.dest_ip), self._port))
            made.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, OFF)
            with suppress(BlockingIOError):
                made.connect((socket.inet_ntoa(held.client_ip), held.client_port))
        except BaseException:
            made.close()
            raise
        return made

    def fail(self, held: Held, error: int) -> None:
        """The client's connect fails with this errno: ECONNREFUSED, or what is nearest of those that ICMP knows."""
        if error == errno.ETIMEDOUT:
            return
        if error == errno.ECONNREFUSED:
            self._send(held, socket.IPPROTO_TCP, self._reset(held))
            return
        for _ in range(2):  # of the first a socket that is just in use only takes note (tcp_v4_err in tcp_ipv4.c)
            self._send(held, socket.IPPROTO_ICMP, self._unreachable(held, error))

    def _send(self, held: Held, protocol: int, body: bytes) -> None:
        """As if it came from where the client connects to."""
        with suppress(OSError):
            self._raw.sendto(_ip(held.dest_ip, held.client_ip, protocol, body), (socket.inet_ntoa(held.client_ip), 0))

    def _reset(self, held: Held) -> bytes:
        """RFC 9293 3.5.2: what a port that nobody listens at answers to a SYN."""

        def segment(checksum: int) -> bytes:
            return struct.pack("!HHIIBBHHH", self._port, held.client_port, 0, held.seq, 5 << 4, RST_ACK, 0, checksum, 0)

        pseudo = held.dest_ip + held.client_ip + struct.pack("!HH", socket.IPPROTO_TCP, len(segment(0)))
        return segment(_checksum(pseudo + segment(0)))

    def _unreachable(self, held: Held, error: int) -> bytes:
        """RFC 792: with the head of the client's SYN."""
        syn = struct.pack("!HHI", held.client_port, self._port, held.seq - 1 & 0xFFFFFFFF)
        lost = _ip(held.client_ip, held.dest_ip, socket.IPPROTO_TCP, syn)
        code = UNREACHABLE.get(error, UNREACHABLE[errno.EHOSTUNREACH])
        checksum = _checksum(struct.pack("!BBHI", ICMP_UNREACH, code, 0, 0) + lost)
        return struct.pack("!BBHI", ICMP_UNREACH, code, checksum, 0) + lost


def _ip(source: bytes, dest: bytes, protocol: int, body: bytes) -> bytes:
    """With an IPv4 header (RFC 791), whose checksum the kernel writes (raw(7))."""
    return struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 0, 0, 64, protocol, 0, source, dest) + body


def _checksum(data: bytes) -> int:
    """RFC 1071. data: of an even size."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
