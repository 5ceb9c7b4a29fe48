"""TCP sockets of this host's network namespace that programs get: good for one connection, and no other.

A socket stays in the namespace that it was made in, and its holder can disconnect it (AF_UNSPEC in connect(2)) and
connect or listen anew, from there: to the host's loopback, say, past all policy. No connection comes about without a
segment that has SYN (RFC 9293 3.5), so a filter drops these (SO_ATTACH_FILTER in socket(7)), but for those of the
connection that the socket is for; and it is locked (SO_LOCK_FILTER), so that no holder takes it off. A SYN the holder
can still send; no answer comes. What has no SYN passes after two instructions.

- What a listening socket accepts inherits its filter: SYNs to its own port pass, as it needs them itself.
- A socket that connects needs one answer to its SYN: that which acknowledges the SYN's sequence number. Its next
  connect has another one, which the kernel chooses. Who has CAP_NET_ADMIN is told the number (TCP_REPAIR); else the two
  ends have to be the same, and so the holder could connect once more, to the same place.
"""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address

from appswitch.host.deaf import RETURN, Instruction, attach_filter
from appswitch.host.held import OFF, ON, TCP_QUEUE_SEQ, TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_SEND_QUEUE

SO_LOCK_FILTER = 44

# linux/bpf_common.h. Loads are from the TCP header on, with NETWORK from the IP header on (linux/filter.h)
LOAD_BYTE, LOAD_HALF, LOAD_WORD = 0x30, 0x28, 0x20
NETWORK = 0xFFF00000
AND, JUMP_IF_EQUAL, JUMP_IF_ANY = 0x54, 0x15, 0x45

PORTS_AT, DEST_PORT_AT, ACKNOWLEDGED_AT, FLAGS_AT = 0, 2, 8, 13  # RFC 9293 3.1
SOURCE_AT = {4: NETWORK + 12, 6: NETWORK + 8}  # RFC 791 3.1, RFC 8200 3
SYN, ACK = 0x02, 0x10

Condition = tuple[int, int, int, int]
"""How and where to load, what counts of it (a mask), and what that must be."""


def confine_listener(listening: socket.socket) -> None:
    """Bound, and not listening yet: what it accepts will be good for that connection only."""
    port = listening.getsockname()[1]
    _confine(listening, [(LOAD_BYTE, FLAGS_AT, ACK, 0), (LOAD_HALF, DEST_PORT_AT, 0xFFFF, port)])


def confine_client(connecting: socket.socket, to: tuple[str, int], sent: int = 0) -> None:
    """Its connect is under way to there: it is good for that one only. sent: bytes that went with the SYN."""
    try:
        wanted = [(LOAD_WORD, ACKNOWLEDGED_AT, 0xFFFFFFFF, _next_number(connecting) - sent & 0xFFFFFFFF)]
    except PermissionError:
        wanted = _ends(to, connecting.getsockname()[1])
    _confine(connecting, wanted)


def _next_number(connecting: socket.socket) -> int:
    """The sequence number that comes after all that was sent. PermissionError without CAP_NET_ADMIN."""
    connecting.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, ON)
    connecting.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, TCP_SEND_QUEUE)
    number = connecting.getsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ)
    connecting.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, OFF)
    return number


def _ends(to: tuple[str, int], own_port: int) -> list[Condition]:
    """Of the answer to a SYN to there."""
    ip = ip_address(to[0].removeprefix("::ffff:").partition("%")[0])
    words = struct.unpack(f"!{len(ip.packed) // 4}I", ip.packed)
    source = [(LOAD_WORD, SOURCE_AT[ip.version] + 4 * at, 0xFFFFFFFF, word) for at, word in enumerate(words)]
    return [(LOAD_WORD, PORTS_AT, 0xFFFFFFFF, to[1] << 16 | own_port), *source]


def _confine(made: socket.socket, wanted: list[Condition]) -> None:
    """SYNs pass where all this holds, and what is no SYN."""
    size = 3 * len(wanted)
    program: list[Instruction] = [(LOAD_BYTE, 0, 0, FLAGS_AT), (JUMP_IF_ANY, 0, size, SYN)]
    for at, (load, offset, mask, value) in enumerate(wanted):
        program += [(load, 0, 0, offset), (AND, 0, 0, mask), (JUMP_IF_EQUAL, 0, size - 3 * at - 2, value)]
    attach_filter(made, [*program, (RETURN, 0, 0, 0xFFFFFFFF), (RETURN, 0, 0, 0)])
    made.setsockopt(socket.SOL_SOCKET, SO_LOCK_FILTER, 1)
