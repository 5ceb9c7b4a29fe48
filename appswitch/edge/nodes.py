"""Which hosts there are: what the control socket asks about them, and the answers of a host by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from attrs import frozen

from appswitch.model import Address, Node


class Standing(NamedTuple):
    """A node; the seq of its table as it is here; and when that was last all of it, in seconds since 1970."""

    node: Node
    seq: int | None = None
    agreed: float | None = None


class Nodes(Protocol):
    """own: this host; obstacle: what `until_agreed` waits for."""

    @property
    def own(self) -> Node: ...

    @property
    def obstacle(self) -> str: ...

    def called(self, name: str) -> Node:
        """What is known of the node of that name."""

    def standings(self) -> Iterator[Standing]:
        """All, this one first."""

    def own_ports(self) -> set[tuple[Address, int]]:
        """Where the nodes talk to each other."""

    def gateways(self) -> list[str]:
        """The other nodes that are gateways: those that are alive; where none is, those that may have come back."""

    async def until_agreed(self) -> None:
        """Waits until this node and all that are alive have the same tables."""


@frozen
class OneNode:
    """A host by itself."""

    own: Node
    obstacle: str = ""

    def called(self, name: str) -> Node:
        return Node(name)

    def standings(self) -> Iterator[Standing]:
        yield Standing(self.own)

    def own_ports(self) -> set[tuple[Address, int]]:
        return set()

    def gateways(self) -> list[str]:
        return []

    async def until_agreed(self) -> None:
        """It always does."""
