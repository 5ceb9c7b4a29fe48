"""TCP connections that have been announced to this node, until they come: each begins with a preamble that shows the
number that it was given (wire/peer_channel.py, arrival). Who announced it in which session is checked here; what it is
for, whoever expects it knows (edge/arrivals.py: an app here; edge/letting_out.py: the outside).
"""

from __future__ import annotations

import math
import secrets
import socket
from collections import Counter
from collections.abc import Awaitable, Callable

import trio
from attrs import define, field, frozen

from appswitch.wire.peer_channel import PeerError, Session, arrival_number, check_arrival

ARRIVES_WITHIN = 30.0  # seconds from the answer on: lost SYNs are sent again after 1, 3, 7 and 15
MOST = 4096  # whoever has most of them loses its oldest for a new one
SWEEP_EVERY = 5.0  # seconds

Take = Callable[[socket.socket], Awaitable[None]]
"""Has the connection, which is closed when it returns."""


@frozen
class _Expected:
    session: Session
    owner: object
    take: Take
    drop: Callable[[], None]
    until: float


@define
class ExpectedConnections:
    """Those of one node."""

    _expected: dict[int, _Expected] = field(factory=dict)

    def add(self, session: Session, take: Take, drop: Callable[[], None], owner: object = None) -> int:
        """One more; its number. drop: called at the end, whether it has come or not; owner: whose it is: one that
        announces without end takes nobody's place but its own.
        """
        if len(self._expected) >= MOST:
            ((greediest, _),) = Counter(each.owner for each in self._expected.values()).most_common(1)
            oldest = next(number for number, each in self._expected.items() if each.owner == greediest)
            self._expected.pop(oldest).drop()
        number = secrets.randbits(64)
        self._expected[number] = _Expected(session, owner, take, drop, trio.current_time() + ARRIVES_WITHIN)
        return number

    async def arrived(self, preamble: bytes, connection: socket.socket) -> None:
        """Of Peers.arrived."""
        number = arrival_number(preamble)
        expected = self._expected.get(number)
        if expected is None:
            raise PeerError("no connection is expected under its number, or not any more")
        check_arrival(expected.session, preamble)
        del self._expected[number]
        try:
            with socket.socket(fileno=connection.detach()) as end:
                await expected.take(end)
        finally:
            expected.drop()

    async def keep_swept(self) -> None:
        """Forgets for ever what has never come."""
        try:
            while True:
                await trio.sleep(SWEEP_EVERY)
                self._forget_until(trio.current_time())
        finally:
            self._forget_until(math.inf)

    def _forget_until(self, time: float) -> None:
        for number in [number for number, each in self._expected.items() if each.until < time]:
            self._expected.pop(number).drop()
