"""What programs say, as `compose up` and `compose logs` show it: each line behind the name of who said it."""

from __future__ import annotations

import itertools
import os
import re
import sys
from collections.abc import Collection
from datetime import datetime

from appswitch.compose.logbook import Line

COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
"""Of a terminal (ECMA-48, SGR): a service has the same in all its lines."""

_UNSAFE = re.compile(r"\x1b\[[0-9;]*m|([^\x20-\x7e\t\xa0-\U0010ffff])")
"""Colours pass; what else would steer a terminal doesn't."""
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Printer:
    """names: of the programs, whose longest makes the room before the text."""

    def __init__(self, names: Collection[str], no_color: bool = False, timestamps: bool = False) -> None:
        self._width = max(map(len, names), default=0)
        self._colored = sys.stdout.isatty() and not no_color and not os.environ.get("NO_COLOR")
        self._timestamps = timestamps
        self._colours: dict[str, int] = {}
        self._unused = itertools.cycle(COLOURS)

    def show(self, lines: Collection[Line]) -> None:
        """Prints them. BrokenPipeError: nobody reads."""
        sys.stdout.write("".join(self.text(each) + "\n" for each in lines))
        sys.stdout.flush()

    def text(self, line: Line) -> str:
        """One line. A note has no bar."""
        time = datetime.fromtimestamp(line.time).astimezone().isoformat(timespec="milliseconds")
        stamp = f"{time} " if self._timestamps else ""
        if line.note:
            return stamp + self._paint(line.service, line.instance or "appswitch:") + " " + _safe(line.text)
        prefix = self._paint(line.service, f"{line.instance:<{self._width}} |")
        end = "\x1b[0m" if self._colored and _COLOUR.search(line.text) else ""
        return f"{prefix} {stamp}{_safe(line.text) if self._colored else _COLOUR.sub('', _safe(line.text))}{end}"

    def _paint(self, service: str, text: str) -> str:
        if not self._colored or not service:
            return text
        if service not in self._colours:
            self._colours[service] = next(self._unused)
        return f"\x1b[{self._colours[service]}m{text}\x1b[0m"


def _safe(text: str) -> str:
    return _UNSAFE.sub(lambda match: " " if match[1] else match[0], text.removesuffix("\r"))
