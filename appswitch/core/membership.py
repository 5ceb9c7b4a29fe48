"""Which node has a name, when more than one member of the cluster says that it is called so.

Each agent is a Serf member under a name of its own, NODE~STARTED, so that Serf never sees two of one name (it would
settle that by a vote, and of two nodes both would lose). The claim to the node's name is in a tag, for all to compare:

- A claim is *established* once its node knows of no other: it has joined others, or has none to join. It is kept on
  disk. An established one beats one that isn't; then the older wins; then the lesser name. All decide the same.
- A failed member keeps its claim, so that a host may restart; one that has left has given it up.
- Two members of one owner (the same claim, or the same address and port) are one after the other; the later counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from attrs import evolve, frozen

CLAIM = "c"
"""The tag."""


class Status(StrEnum):
    """What Serf says of a member."""

    ALIVE = "alive"
    LEAVING = "leaving"
    LEFT = "left"
    FAILED = "failed"


@frozen(order=True)
class Claim:
    """since: nanoseconds since the epoch; random enough to tell two owners apart."""

    unestablished: bool
    since: int

    def __str__(self) -> str:
        """The tag's value."""
        return f"{self.since:x}{'?' if self.unestablished else ''}"


def parse_claim(text: str) -> Claim:
    """ValueError when it is none."""
    return Claim(text.endswith("?"), int(text.removesuffix("?"), 16))


@frozen
class Member:
    """A node, as one of its agents shows it. address and port: of Serf; started: nanoseconds since the epoch."""

    name: str
    address: str
    port: int
    status: Status
    tags: dict[str, str]
    started: int
    claim: Claim

    @property
    def agent(self) -> str:
        """Its name within Serf."""
        return agent_name(self.name, self.started)

    @property
    def is_alive(self) -> bool:
        return self.status is Status.ALIVE

    def is_successor(self, other: Member) -> bool:
        """Whether the two have one owner, of whom this is the later one.

        Two that are alive at different addresses are two, though they may have one claim: a copied disk.
        """
        if self.name != other.name or self._recency < other._recency:
            return False
        here = (self.address, self.port) == (other.address, other.port)
        return here or (self.claim.since == other.claim.since and not other.is_alive)

    @property
    def _recency(self) -> tuple[bool, bool, int]:
        return self.status is not Status.LEFT, self.is_alive, self.started


def agent_name(node: str, started: int) -> str:
    return f"{node}~{started:x}"


def parse_member(agent: str, address: str, port: int, status: str, tags: dict[str, str]) -> Member | None:
    """None when it is no node of AppSwitch's (any holder of the key may join)."""
    name, _, started = agent.rpartition("~")
    try:
        return Member(name, address, port, Status(status), tags, int(started, 16), parse_claim(tags[CLAIM]))
    except (KeyError, ValueError):
        return None


def holders(members: Iterable[Member]) -> dict[str, Member]:
    """By name, the one that has it; one that has left, when nobody else is there."""
    owners: list[Member] = []
    for member in sorted(members, key=lambda each: each._recency):  # so that a successor comes after whom it succeeds
        later = member
        for earlier in [each for each in owners if member.is_successor(each)]:
            owners.remove(earlier)
            if earlier.status is not Status.LEFT:
                later = evolve(later, claim=min(later.claim, earlier.claim))
        owners.append(later)
    best = sorted(owners, key=lambda each: (each.status is Status.LEFT, each.claim, each.agent))
    return {each.name: each for each in reversed(best)}
