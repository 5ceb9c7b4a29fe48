"""The ways out to addresses that no app owns: by this host, where it is a gateway, else by other nodes that are.

Gateways take turns: who was chosen longest ago is next. One that didn't answer is put aside, tried again after a pause
that doubles each time, or when no other one is left.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection

from attrs import define, field, frozen

from appswitch.core.balance import FIRST_NODE_PAUSE, LONGEST_NODE_PAUSE, Aside
from appswitch.model import Address

NO_WAY = (errno.ENETUNREACH, errno.EHOSTUNREACH)
"""What a gateway says where another one may have a way."""


def _none() -> tuple[()]:
    return ()


@frozen
class Exit:
    """The other end of what leads outside: the gateway that it goes by. names: of the server there (model.Outside)."""

    node: str
    names: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """As an app has one."""
        return self.node


@define
class Exits:
    """here: this host is a gateway; others: the other nodes that are gateways, and alive as far as is known; own_ports:
    where the nodes of the cluster talk to each other, and no app is let.
    """

    here: bool
    others: Callable[[], Collection[str]] = _none
    own_ports: Callable[[], Collection[tuple[Address, int]]] = _none
    _turns: int = 0
    _chosen: dict[str, int] = field(factory=dict)
    _aside: Aside[str] = field(factory=lambda: Aside(FIRST_NODE_PAUSE, LONGEST_NODE_PAUSE))

    def check(self, ip: Address, port: int) -> None:
        """Before something leaves for there by a socket of this host. ConnectionRefusedError."""
        if (ip, port) in self.own_ports():
            raise ConnectionRefusedError(errno.ECONNREFUSED, "the nodes of the cluster have this port for themselves")

    def order(self, gateways: Collection[str], now: float) -> list[str]:
        """In which order to try them this time. now: seconds, never less than before."""
        self._turns += 1
        order = sorted(
            gateways, key=lambda each: (max(self._aside.until(each) - now, 0.0), self._chosen.get(each, 0), each)
        )
        if order:
            self._chosen[order[0]] = self._turns
        return order

    def failed(self, gateway: str, now: float) -> bool:
        """It didn't answer. True: that is news."""
        is_news = gateway not in self._aside
        self._aside.add(gateway, now)
        return is_news

    def worked(self, gateway: str) -> None:
        """It has answered."""
        self._aside.pop(gateway, None)
