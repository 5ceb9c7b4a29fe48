"""So that no caller takes all of us: each has its turns, and its share of the descriptors.

Turns: trio runs what is ready in rounds, all of it between two looks at the kernel. So a caller with a thousand
channels would have a thousand requests answered between two of another one's. Instead each caller begins TURNS requests
a round; what is over waits for one of the next rounds. Where nobody has more than that, nothing waits, and it costs a
look into a dictionary.

A caller is known here before it has said a word: by its network namespace, which is an app's; in ours, by its user.
"""

from __future__ import annotations

import resource
import socket

import trio
from attrs import define, field

from appswitch.edge.apps import Credentials

TURNS = 2
PARTS = 4
"""A caller may have one part of the descriptors in channels, and an app one in listeners."""

Key = tuple[int, int]


def key_of(caller: Credentials, netns: int) -> Key:
    """netns: the cookie of our own network namespace."""
    return (caller.netns, 0) if caller.netns != netns else (netns, caller.uid)


def share_of_descriptors() -> int:
    """How many a caller may have of a kind."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] // PARTS


class Turns(trio.abc.Instrument):
    """An instrument of the trio run that it serves, which tells it of the rounds."""

    def __init__(self) -> None:
        self._begun: dict[Key, int] = {}
        self._waiting: dict[Key, trio.lowlevel.ParkingLot] = {}
        self._crowd = trio.Event()

    def after_io_wait(self, timeout: float) -> None:
        """A new round begins."""
        if self._begun:
            self._begun.clear()

    def begins(self, key: Key) -> bool:
        """Whether a caller may begin one more now. False: `wait`, and then it may."""
        begun = self._begun.get(key, 0)
        if begun >= TURNS:
            return False
        self._begun[key] = begun + 1
        return True

    async def wait(self, key: Key) -> None:
        """Until it is its turn."""
        self._crowd.set()
        await self._waiting.setdefault(key, trio.lowlevel.ParkingLot()).park()

    async def run(self) -> None:
        """Lets those who wait have their turns, for ever."""
        trio.lowlevel.add_instrument(self)
        try:
            while True:
                await self._crowd.wait()
                self._crowd = trio.Event()
                while self._waiting:
                    await trio.lowlevel.checkpoint()
                    for key, lot in list(self._waiting.items()):
                        self._begun[key] = self._begun.get(key, 0) + len(lot.unpark(count=TURNS))
                        if not lot:
                            del self._waiting[key]
        finally:
            trio.lowlevel.remove_instrument(self)


@define
class Channels:
    """How many channels each caller has. most: of one; it is told so.

    Where it has half of them, its oldest one ends. It notices nothing of that: what it has asked is answered, and when
    it has more to ask, it connects again.
    """

    most: int = field(factory=share_of_descriptors)
    _open: dict[Key, dict[socket.socket, None]] = field(factory=dict)

    def add(self, key: Key, channel: socket.socket) -> bool:
        """False: it is one too many."""
        theirs = self._open.setdefault(key, {})
        if len(theirs) >= self.most:
            return False
        theirs[channel] = None
        if len(theirs) > self.most // 2:
            oldest = next(iter(theirs))
            del theirs[oldest]
            theirs[oldest] = None  # it has its end before it; the next one is another
            oldest.shutdown(socket.SHUT_RD)
        return True

    def remove(self, key: Key, channel: socket.socket) -> None:
        """It is closed."""
        theirs = self._open.get(key, {})
        theirs.pop(channel, None)
        if not theirs:
            self._open.pop(key, None)
