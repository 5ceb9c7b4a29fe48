"""Our claim to our node's name (core/membership.py), kept in a file so that it outlives us."""

from __future__ import annotations

import time
from pathlib import Path

import structlog
from attrs import define, evolve

from appswitch.core.membership import Claim, Member, Status, holders, parse_claim
from appswitch.edge.serf_joins import joined

log = structlog.get_logger()


@define
class OwnClaim:
    """refused: why the name isn't ours; the claim goes on, and is heard once the other has left."""

    node: str
    file: Path
    claim: Claim
    refused: str | None = None

    @classmethod
    def read(cls, node: str, file: Path) -> OwnClaim:
        """As kept, else a new one. That to another name says nothing about this one: its owner may be there."""
        try:
            name, _, kept = file.read_text().rpartition(" ")
            if name != node:
                raise ValueError(name)
            claim = parse_claim(kept)
        except (OSError, ValueError):
            claim = Claim(unestablished=True, since=time.time_ns())
        return cls(node, file, claim)

    @property
    def holds(self) -> bool:
        """Whether the name is ours for good."""
        return self.refused is None and not self.claim.unestablished

    def judge(self, members: list[Member], started: int, met: bool) -> bool:
        """Looks whether the name is ours. Whether something has changed.

        started: of our agent; met: there is nobody else whom we should ask first.
        """
        before = self.refused, self.claim
        holder = holders(members).get(self.node)
        if holder is None:  # our agent doesn't know itself yet
            return False
        self.refused = None if holder.started == started else _refusal(holder)
        if self.refused is None and met and self.claim.unestablished:
            self.claim = evolve(holder.claim, unestablished=False)  # a predecessor's is ours, too
            self._keep()
        if self.refused != before[0]:
            self._tell(holder)
        return before != (self.refused, self.claim)

    def _tell(self, holder: Member) -> None:
        if self.refused is None:
            log.info("this node's name isn't taken any more", node=self.node)
            return
        hint = "give this one another name with --node"
        if holder.status is Status.FAILED:
            hint += f", or make the others forget the old one: stop it properly, or `serf force-leave {holder.agent}`"
        log.error("this node isn't let in", reason=self.refused, hint=hint)

    def _keep(self) -> None:
        try:
            self.file.write_text(f"{self.node} {self.claim}")
        except OSError as error:
            log.warning("the claim to this node's name can't be kept", file=str(self.file), reason=error.strerror)


def _refusal(holder: Member) -> str:
    where = "which can't be reached now" if holder.status is Status.FAILED else "which was there before"
    return f"the name {holder.name!r} is taken by the node at {joined(holder.address, holder.port)}, {where}"
