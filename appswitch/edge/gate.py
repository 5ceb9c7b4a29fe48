"""The gate that clients from outside come through, as many as a gateway lets in (core/limits.py).

Who has to wait does so in the kernel's queue of the listening socket: there it costs a gateway nothing, and its SYN is
answered once there is room. Connections that were handed over are somebody else's sockets, so how many are open we ask
the kernel: all that have one of our ports (sock_diag(7)).
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Container
from functools import partial
from ipaddress import ip_address

import structlog
import trio
from attrs import define, field

from appswitch.core.limits import Limits
from appswitch.edge.arrivals import RESET
from appswitch.edge.diag import Diag
from appswitch.edge.trouble import Trouble
from appswitch.edge.turnstile import Turnstile
from appswitch.model import Address
from appswitch.wire import tcp_diag

PAUSE = 0.1  # seconds, where nobody can be accepted
COUNT_EVERY = 60.0  # seconds, also where nobody is at a limit: what has ended takes room in the table

log = structlog.get_logger()


@define
class Gate:
    """Of a gateway, for all its ports. diag: of the namespace that they are in; ports: those that are open now; clock:
    of the turnstile.
    """

    limits: Limits
    diag: Diag | None = None
    ports: Callable[[], Container[int]] = tuple
    clock: Callable[[], float] = time.monotonic
    turnstile: Turnstile = field(init=False)
    _counting: trio.Lock = field(factory=trio.Lock)
    trouble: Trouble = field(factory=lambda: Trouble("clients can't be accepted: they wait"))

    def __attrs_post_init__(self) -> None:
        self.turnstile = Turnstile(self.limits)

    async def accept(self, listening: socket.socket) -> socket.socket:
        """The next client that may come in; non-blocking."""
        while True:
            await trio.lowlevel.checkpoint_if_cancelled()  # then it is closed
            if self.limits.let_wait:
                await trio.lowlevel.wait_readable(listening)
                await self._wait()
            try:
                accepted, name = listening.accept()
            except BlockingIOError:
                self.turnstile.give_back()
                await trio.lowlevel.wait_readable(listening)
            except ConnectionAbortedError:
                pass
            except OSError as error:  # descriptors are short, or the network has trouble (accept(2))
                self.trouble.note(error.errno)
                await trio.sleep(PAUSE)
            else:
                accepted.setblocking(False)
                if not self.limits.need_count or await self._let_in(plain(name[0])):
                    return accepted
                reset(accepted)

    async def has_said_something(self, accepted: socket.socket) -> bool:
        """Whether it has sent a first byte in time, where that is wanted, or has ended."""
        if self.limits.first_byte is None:
            return True
        with trio.move_on_after(self.limits.first_byte):
            await trio.lowlevel.wait_readable(accepted)
            return True
        return False

    async def _wait(self) -> None:
        """Until one more may be let in."""
        while True:
            if self.turnstile.is_full:
                await self.count()
            elif pause := self.turnstile.pause(self.clock()):
                await trio.sleep(pause)
            else:
                return

    async def _let_in(self, ip: Address) -> bool:
        """False: it has too many already."""
        self.turnstile.let_in(ip)
        return await self.may_stay(ip)

    async def may_stay(self, ip: Address) -> bool:
        """Whether one that was let in isn't one too many of its source; else it is turned away."""
        if self.turnstile.has_too_many(ip) and not self.turnstile.may_count_in(self.clock()):
            await self.count()
        if not self.turnstile.has_too_many(ip):
            return True
        self.turnstile.turn_away(ip)
        return False

    async def keep_counting(self) -> None:
        """For ever, now and then."""
        while self.limits.need_count:
            await trio.sleep(COUNT_EVERY)
            await self.count()

    async def count(self) -> None:
        """Asks the kernel, once it is time."""
        async with self._counting:
            await trio.sleep(self.turnstile.may_count_in(self.clock()))
            self.turnstile.count(self.clock())
            try:
                self.turnstile.counted(await self._clients())
            except OSError as error:
                log.warning("connections can't be counted", reason=error.strerror)

    async def _clients(self) -> list[Address]:
        found: list[Address] = []
        assert self.diag is not None
        for family in (socket.AF_INET, socket.AF_INET6):
            request = partial(tcp_diag.connected_sockets, family=family)
            found += await self.diag.dump(request, partial(tcp_diag.decode_client, ports=self.ports()))
        return found


def plain(text: str) -> Address:
    """What accept says, without a scope."""
    return ip_address(text.partition("%")[0])


def reset(connection: socket.socket) -> None:
    """Closes it, and lets the other end know that nothing comes of it."""
    with connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
