"""Who has sent datagrams to whom: what goes back is an answer, and may go where policy would let no question go."""

from __future__ import annotations

from collections import OrderedDict

from attrs import define, field

from appswitch.model import Address, App

REMEMBERED = 65536

Pair = tuple[Address, int]


@define
class Askers:
    """By the address and port that an app has sent from and the app that it has sent to, whatever that answers from."""

    _askers: OrderedDict[tuple[Pair, int], App] = field(factory=OrderedDict)

    def remember(self, source: Pair, receiver: App, asker: App) -> None:
        """`asker` has sent from `source` to `receiver`."""
        self._askers[source, receiver.id] = asker
        self._askers.move_to_end((source, receiver.id))
        if len(self._askers) > REMEMBERED:
            self._askers.popitem(last=False)

    def find(self, source: Pair, receiver: App) -> App | None:
        """Who has."""
        return self._askers.get((source, receiver.id))
