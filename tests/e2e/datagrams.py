"""Small servers and clients of datagrams, in Python, for the tests of UDP between apps.

A server answers each datagram with what it saw: its label, the data, who sent it, and its own name.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.harness import Switch

PYTHON = sys.executable

SERVER = """
import socket, sys
ip, port, label = sys.argv[1], int(sys.argv[2]), sys.argv[3]
s = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_DGRAM)
s.bind((ip, port))
while True:
    data, peer = s.recvfrom(65535)
    print(peer[0], data[:30], flush=True)
    s.sendto(repr((label, data[:100], peer[:2], s.getsockname()[:2])).encode(), peer)
"""

# What clients have: `udp` makes a socket, `ask` gets the answer to a question, which goes by send when `to` is None.
ASK = """
import errno, socket, sys, time
def udp(ip="0.0.0.0"):
    made = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_DGRAM)
    made.settimeout(10)
    return made
def ask(c, data, to=None):
    c.send(data) if to is None else c.sendto(data, to)
    answer, source = c.recvfrom(65535)
    return eval(answer), source[:2]
"""

# Asks five times, with a socket each, and once more with the last.
AGREE = (
    ASK
    + """
how, name, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
family, _, _, _, address = socket.getaddrinfo(name, port, type=socket.SOCK_DGRAM)[0]
c = None
for i in range(6):
    if i < 5:
        c = socket.socket(family, socket.SOCK_DGRAM)
        c.settimeout(10)
        if how == "connected":
            c.connect(address)
            assert c.getpeername() == address, c
    (label, data, seen, at), source = ask(c, b"%d" % i, None if how == "connected" else address)
    assert data == b"%d" % i
    assert seen[1] == c.getsockname()[1], (seen, c)
    assert source == address[:2], (source, address)
    assert at[1] == port
    if how == "connected":
        assert seen[0].removeprefix("::ffff:") == c.getsockname()[0], (seen, c)
    print(seen[0], source[0])
"""
)


def serve(switch: Switch, *flags: str, bound: str = "0.0.0.0", port: int = 7000, label: str = "") -> Path:
    """Starts a server under spawn; its log, a line a datagram: the sender's IP and the data."""
    process = switch.spawn(*flags, PYTHON, "-c", SERVER, bound, str(port), label)
    log: Path = process.log  # type: ignore[attr-defined]
    return log


def run(switch: Switch, *flags: str, code: str, arguments: tuple[str, ...] = ()) -> list[str]:
    """What a client under spawn prints."""
    return switch.run(*flags, PYTHON, "-c", ASK + code, *arguments).stdout.splitlines()
