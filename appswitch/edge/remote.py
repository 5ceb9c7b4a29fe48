"""The way to an instance on another node: one TCP connection between the hosts, of which the program gets its end.

First it is announced over the peer channel: who wants to go where. The other side judges that by its own table
(edge/arrivals.py), sees to it that no two connections there have the same two ends, and gives a number. Then the
connection is made to the other node's peer port, and begins with a preamble that shows the number; what comes after it
is the program's. Nothing depends on addresses, so there may be NAT between the hosts.

A program whose connect blocks gets the socket when the connection stands and the preamble is sent. One whose connect
doesn't gets it at once, and from there on EINPROGRESS, poll and SO_ERROR are the kernel's: for it the preamble goes as
data of TCP Fast Open, without a cookie (MSG_FASTOPEN in tcp(7); TCP_FASTOPEN_NO_COOKIE, Linux 4.15), so that the kernel
has it in the queue before anything that the program writes. A server that doesn't take such data (ours doesn't ask for
it) just acknowledges the SYN, and the kernel sends it again. Where the kernel sends no such data (sysctl
net.ipv4.tcp_fastopen, or after it has met a firewall that eats it), we wait here, too.
"""

from __future__ import annotations

import errno
import os
import socket
from contextlib import ExitStack, suppress
from itertools import islice

import trio
from attrs import frozen

from appswitch.core.route import Reach
from appswitch.edge.dial import Asked, Dial, Dialled
from appswitch.edge.named import NamedSockets, Pair, no_port
from appswitch.edge.peer_channel import UnreachableError
from appswitch.edge.peers import Peers, for_family
from appswitch.edge.source_ports import SourcePorts
from appswitch.edge.tcp_names import Name, TcpNames
from appswitch.host.confined import confine_client
from appswitch.model import Listener
from appswitch.wire.addresses import pack_ip
from appswitch.wire.peer import NO_APP, Announce, Announced
from appswitch.wire.peer_channel import arrival
from appswitch.wire.socknames import Medium

ANSWERS_WITHIN = 0.3  # seconds; then the node is put aside
CONNECTED_WITHIN = 0.5  # seconds
PROPOSALS = 8  # ports of the client that the other side may refuse as in use

TCP_FASTOPEN_NO_COOKIE = 34

PORTS = SourcePorts()


@frozen
class Remote:
    """Connects."""

    peers: Peers
    named: NamedSockets
    names: TcpNames

    def begin(self, asked: Asked, _closing: ExitStack) -> Dial:
        """As of Way."""

        async def dial(plan: Reach, listener: Listener) -> Dialled:
            node = listener.app.node
            source, preamble = await self._announce(asked, (plan.source, plan.port), listener)
            address = self.peers.address_of(node)
            if address is None:
                raise UnreachableError(errno.EHOSTUNREACH, f"node {node} isn't known any more")
            wait, for_program = not asked.nonblocking, asked.app is not None
            client = await connect(address, asked.family, preamble, wait=wait, for_program=for_program)
            packed = self.named.name(source, asked, listener.family, Medium.TCP_CLIENT)
            name = Name(packed, asked.app, listener)
            self.names.add(client, name)
            return Dialled(client, listener, name)

        return dial

    async def _announce(self, asked: Asked, source: Pair, listener: Listener) -> tuple[Pair, bytes]:
        """Where it comes from now, and the preamble."""
        number = asked.app.number if asked.app else NO_APP
        node, (dest_ip, dest_port) = listener.app.node, asked.dest
        for ip, port in islice(self.named.sources(source, asked), PROPOSALS):
            request = Announce(number, listener.number, pack_ip(ip), port, pack_ip(dest_ip), dest_port, asked.family)
            try:
                answer, session = await self.peers.ask_in_session(node, request, ANSWERS_WITHIN)
            except UnreachableError:
                raise
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    continue
                if error.errno == errno.EAGAIN:  # it has only just started, and doesn't know us yet
                    raise UnreachableError(errno.EHOSTUNREACH, f"node {node}: {error.strerror}") from None
                raise ConnectionRefusedError(errno.ECONNREFUSED, f"node {node}: {error.strerror}") from None
            if not isinstance(answer, Announced):
                raise UnreachableError(errno.EPROTO, f"node {node} answers something else")
            return (ip, port), arrival(session, answer.number)
        raise no_port(source)


async def connect(
    address: tuple[str, int], family: int, preamble: bytes, *, wait: bool, for_program: bool = False
) -> socket.socket:
    """A socket, of family 6 or what the address wants, whose connection begins with the preamble. UnreachableError.

    wait: until it stands; for_program: it is to be good for nothing else (host/confined.py).
    """
    ip, port = address
    kind = socket.AF_INET6 if family == 6 or ":" in ip else socket.AF_INET
    first = b"" if wait else preamble
    try:
        client, sent = _begin(kind, (for_family(ip, kind), port), first, None if for_program else PORTS)
    except OSError as error:
        raise _unreachable(ip, error) from None
    try:
        if for_program:
            confine_client(client, address, sent)
        left = preamble[sent:]
        if left:
            await _wait_until_connected(client)
        if left and client.send(left, socket.MSG_NOSIGNAL) != len(left):
            raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
    except BaseException as error:
        client.close()
        if isinstance(error, OSError):
            raise _unreachable(ip, error) from None
        raise
    return client


def _unreachable(ip: str, error: OSError) -> UnreachableError:
    return UnreachableError(error.errno or errno.EIO, f"no connection to {ip}: {error.strerror}")


def _begin(kind: int, address: tuple[str, int], first: bytes, ports: SourcePorts | None) -> tuple[socket.socket, int]:
    """A socket that connects, and how much of `first` is on its way already. ports: to be used anew. OSError."""
    client = socket.socket(kind, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    bound = ports is not None and ports.bind(client)
    try:
        sent = _start(client, address, first)
    except OSError as error:
        client.close()
        if ports is None or not bound or error.errno != errno.EADDRNOTAVAIL:
            raise
        ports.skip()
        return _begin(kind, address, first, ports)
    if ports is not None:
        ports.note(client)
    return client, sent


def _start(client: socket.socket, address: tuple[str, int], first: bytes) -> int:
    """Starts connecting; how much of `first` is on its way already. OSError."""
    if first:
        try:
            client.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, 1)
            return client.sendto(first, socket.MSG_FASTOPEN | socket.MSG_NOSIGNAL, address)
        except BlockingIOError:  # it connects, but without data
            return 0
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.ENOPROTOOPT):
                raise
    with suppress(BlockingIOError):
        client.connect(address)
    return 0


async def _wait_until_connected(client: socket.socket) -> None:
    with trio.move_on_after(CONNECTED_WITHIN) as scope:
        await trio.lowlevel.wait_writable(client)
    error = errno.ETIMEDOUT if scope.cancelled_caught else client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if error:
        raise OSError(error, os.strerror(error))
