"""What a project's programs said, and what became of them: a file of JSON lines, and those who read it as it grows.

Whoever reads has a place in the file and nothing else, so that a slow reader costs nobody anything: a program never
waits for one, and nothing is kept in memory. A file that is long enough becomes log.1; the log.1 before it is lost.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import AsyncGenerator, Collection, Iterable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import msgspec
import trio

MOST_BYTES = 16 << 20
"""Of a file."""
CHUNK = 1 << 18
"""Bytes that a reader gets at once."""


class Line(msgspec.Struct, frozen=True):
    """time: seconds since 1970; instance: who said it; note: it is about the instance, not by it."""

    time: float
    service: str
    instance: str
    text: str
    note: bool = False


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Line).decode


class LogBook:
    """path: of the file, which is made."""

    def __init__(self, path: Path, most_bytes: int = MOST_BYTES) -> None:
        self._path = path
        self._old = path.with_name(path.name + ".1")
        self._most_bytes = most_bytes
        self._written = path.open("ab", buffering=0)
        self._cut = False
        self._grown = trio.Event()
        self._readers = 0
        self.closed = False

    def add(self, lines: Collection[Line]) -> None:
        """Appends. A full disk loses them."""
        text = b"\n" * self._cut + b"".join(_encode(each) + b"\n" for each in lines)
        self._cut = True
        try:
            self._cut = self._written.write(text) < len(text)
            if self._written.tell() > self._most_bytes:
                self._written.close()
                self._path.replace(self._old)
                self._written = self._path.open("ab", buffering=0)
        except OSError:
            pass
        self._wake()

    def close(self) -> None:
        """Nothing more will be said: whoever follows reads the rest, and is through."""
        self.closed = True
        self._written.close()
        self._wake()

    async def until_read(self) -> None:
        """Returns once nobody reads any more."""
        while self._readers:
            await self._grown.wait()

    def _wake(self) -> None:
        self._grown.set()
        self._grown = trio.Event()

    async def read(
        self, services: Collection[str] = (), tail: int | None = None, follow: bool = False
    ) -> AsyncGenerator[list[Line], None]:
        """What was said, in pieces, and what will be. services: whose; none: everybody's. tail: the last ones only."""
        wanted = frozenset(services)
        stream = self._path.open("rb")  # first, for it may become the old one meanwhile
        self._readers += 1
        try:
            last: deque[Line] = deque(maxlen=tail)
            for lines in chain(self._old_pieces(), _pieces(stream)):
                last.extend(_of(lines, wanted))
                if tail is None:
                    yield list(last)
                    last.clear()
                await trio.lowlevel.checkpoint()
            yield list(last)
            while True:
                grown = self._grown
                for lines in _pieces(stream):
                    yield _of(lines, wanted)
                if os.fstat(stream.fileno()).st_ino != self._path.stat().st_ino:
                    stream.close()
                    stream = self._path.open("rb")
                elif self.closed or not follow:
                    return
                else:
                    await grown.wait()
        finally:
            stream.close()
            self._readers -= 1
            self._wake()

    def _old_pieces(self) -> Iterator[list[Line]]:
        if self._old.exists():
            with self._old.open("rb") as stream:
                yield from _pieces(stream)


def _pieces(stream: BinaryIO) -> Iterator[list[Line]]:
    """The lines from the reader's place on. One that a full disk has cut is left out."""
    while written := stream.readlines(CHUNK):
        lines = []
        for each in written:
            with suppress(ValueError):  # msgspec's, or half a character
                lines.append(_decode(each))
        yield lines


def last_lines(path: Path, count: int) -> list[Line]:
    """The last ones of a file."""
    with path.open("rb") as stream:
        return list(deque(chain.from_iterable(_pieces(stream)), count))


def _of(lines: Iterable[Line], wanted: Collection[str]) -> list[Line]:
    return [each for each in lines if not wanted or each.service in wanted]
