"""The backends of external servers (core/external.py), as a gateway reaches them: by a socket of its own host.

Each is connected to at intervals, which shows whether it is healthy (core/health.py). Names are looked up by our own
questions to the name servers, for the TTL; when these don't answer, what they said last still holds. What a name may
not stand for (core/external.py, may_stand_for) is left out.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from ipaddress import ip_address

import structlog
import trio
from attrs import define, field

from appswitch.core.balance import Balancer
from appswitch.core.external import may_stand_for
from appswitch.core.health import Healths
from appswitch.core.service_table import ServiceTable
from appswitch.model import Address, Listener
from appswitch.wire.dns import Found

CONNECTED_WITHIN = 2.0  # seconds that one address has to take a connection
AT_LEAST = 5.0  # seconds that an answer of the name servers is used
TICK = 0.25  # seconds between two looks at which backends are due

Who = tuple[str, int]
"""A backend: HOST and PORT, whichever servers have it, and whoever registered it."""

log = structlog.get_logger()


def backend_of(listener: Listener) -> Who:
    """The backend that a listener of an external server is."""
    assert listener.outside is not None
    return listener.outside


@define
class Backends:
    """Those of all external servers. balancer: says whose turn it is among several.

    look_up: asks the name servers; check: ConnectionRefusedError where no app is let (core/exits.py).
    """

    table: ServiceTable
    balancer: Balancer
    look_up: Callable[[str], Awaitable[Found | None]]
    check: Callable[[Address, int], None] = lambda _ip, _port: None
    healths: Healths[Who] = field(factory=Healths)
    _found: dict[str, tuple[tuple[Address, ...], float]] = field(factory=dict)
    """Host -> its addresses, and until when they hold."""

    async def run(self) -> None:
        """Looks after their health, for ever."""
        under_way: set[Who] = set()
        async with trio.open_nursery() as nursery:
            while True:
                there = set(self._all())
                self._found = {host: each for host, each in self._found.items() if host in {name for name, _ in there}}
                for who in self.healths.due(there, trio.current_time()):
                    if who not in under_way:
                        under_way.add(who)
                        nursery.start_soon(self._look_at, who, under_way)
                await trio.sleep(TICK)

    def _all(self) -> Iterator[Who]:
        for app in self.table.externals.values():
            yield from (backend_of(each) for each in self.table.listeners_of(app))

    async def _look_at(self, who: Who, under_way: set[Who]) -> None:
        try:
            with suppress(OSError):
                (await self.connect(who, 4)).close()
        finally:
            under_way.discard(who)

    async def connect_any(self, candidates: Sequence[Listener], family: int) -> tuple[Listener, socket.socket]:
        """A connection to one of them, and which: in turns, those that are down last. OSError: none takes it."""
        down = [each for each in candidates if self.healths.is_down(backend_of(each))]
        rest = [each for each in candidates if each not in down]
        order = [*(self.balancer.order(rest, trio.current_time()) if rest else ()), *down]
        error: OSError | None = None
        for listener in order:
            try:
                return listener, await self.connect(backend_of(listener), family)
            except OSError as failed:
                error = error or failed
        assert error is not None
        raise error

    async def connect(self, who: Who, family: int) -> socket.socket:
        """A connection to this one, non-blocking; family: 4 or 6, of the client's socket. ConnectionRefusedError."""
        host, port = who
        try:
            made = await self._connect(await self._addresses(host), port, family)
        except OSError as error:
            reason = error.strerror or str(error)
            if self.healths.failed(who, reason, trio.current_time()):
                log.warning("a backend doesn't answer", host=host, port=port, reason=reason)
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"{host} port {port}: {reason}") from None
        if self.healths.worked(who, trio.current_time()):
            log.info("a backend answers", host=host, port=port)
        return made

    async def _connect(self, addresses: Sequence[Address], port: int, family: int) -> socket.socket:
        error: OSError | None = None
        for ip in addresses:
            try:
                self.check(ip, port)
                return await _connect_to(ip, port, family)
            except OSError as failed:
                error = failed
        assert error is not None
        raise error

    async def _addresses(self, host: str) -> tuple[Address, ...]:
        """At least one. OSError: there is none."""
        with suppress(ValueError):
            return self._fit((ip_address(host),))
        known, until = self._found.get(host, ((), 0.0))
        now = trio.current_time()
        if now >= until:
            found = await self.look_up(host)
            if found is not None:
                known = found.addresses
                self._found[host] = known, now + max(found.ttl, AT_LEAST)
        if not known:
            raise OSError(errno.EHOSTUNREACH, "the name servers know no such name")
        return self._fit(known)

    def _fit(self, addresses: tuple[Address, ...]) -> tuple[Address, ...]:
        fit = tuple(ip for ip in addresses if may_stand_for(self.table, ip))
        if not fit:
            raise OSError(errno.EHOSTUNREACH, f"it stands for {addresses[0]}, which is no address outside")
        return fit


async def _connect_to(ip: Address, port: int, family: int) -> socket.socket:
    """Of family 6, or what the address wants. OSError."""
    kind = socket.AF_INET6 if family == 6 or ip.version == 6 else socket.AF_INET
    text = f"::ffff:{ip}" if kind == socket.AF_INET6 and ip.version == 4 else str(ip)
    made = socket.socket(kind, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        with suppress(BlockingIOError):
            made.connect((text, port))
        error = errno.ETIMEDOUT
        with trio.move_on_after(CONNECTED_WITHIN):
            await trio.lowlevel.wait_writable(made)
            error = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
    except BaseException:
        made.close()
        raise
    return made
