"""The claim to the node's name, as it is kept."""

from __future__ import annotations

from pathlib import Path

from appswitch.core.membership import Claim, Member, Status
from appswitch.edge.serf_claim import OwnClaim


def established(node: str, file: Path) -> Claim:
    """That of a node that is there alone."""
    own = OwnClaim.read(node, file)
    assert own.judge([Member(node, "10.0.0.1", 7946, Status.ALIVE, {}, 1, own.claim)], 1, met=True)
    return own.claim


def test_it_outlives_us(tmp_path: Path) -> None:
    claim = established("b", tmp_path / "claim")
    assert OwnClaim.read("b", tmp_path / "claim").claim == claim


def test_a_renamed_node_does_not_take_its_age_along(tmp_path: Path) -> None:
    """Else it would turn out the node that has had the new name all the time."""
    established("b", tmp_path / "claim")
    assert OwnClaim.read("c", tmp_path / "claim").claim.unestablished
