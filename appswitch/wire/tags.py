"""What a node's Serf tags say of it: where its peer channel is, how far its log is, and whether it is a gateway."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from appswitch.model import Node, Summary

VERSION = "2"
"""Of all that nodes say to each other. Nodes of different versions don't understand each other."""


@frozen
class Told:
    """port: of the peer channel."""

    port: int
    gateway: bool
    summary: Summary


def encode(node: Node, summary: Summary) -> dict[str, str]:
    """Of a node with a peer channel."""
    tags = {"v": VERSION, "p": str(node.port), "i": str(summary.incarnation), "s": str(summary.seq)}
    return {**tags, "d": f"{summary.digest:x}", **({"g": "1"} if node.gateway else {})}


def decode(tags: Mapping[str, str]) -> Told:
    """ValueError says what is wrong with them."""
    if tags.get("v") != VERSION:
        raise ValueError(f"it speaks version {tags.get('v')!r}, this node {VERSION!r}")
    try:
        port, incarnation, seq, digest = int(tags["p"]), int(tags["i"]), int(tags["s"]), int(tags["d"], 16)
    except KeyError as error:
        raise ValueError(f"the tag {error} is missing") from None
    if not 0 < port < 65536 or incarnation < 0 or seq < 0:
        raise ValueError(f"no such port, or no such log: {dict(tags)}")
    return Told(port, "g" in tags, Summary(incarnation, seq, digest))
