"""Serf's gossip as a model, for clusters that this machine can't hold: how long, how much, how often lost.

Measured (3, 10 and 30 real agents on one machine): how long an event takes to reach all, and that some 40 events a
second get through. The rest is memberlist's source, LAN profile. What is beyond 30 nodes is a straight line drawn on.
"""

from __future__ import annotations

import math

MEASURED = ((3, 0.08), (10, 0.25), (30, 0.43))  # nodes, seconds until an event is everywhere, median
GETS_THROUGH = 40.0  # messages a second: a burst of 2,000 events of 300 bytes lost 74 %
BUDGET = 3 * 1400 / 0.2  # bytes a second that a node sends at most: GossipNodes, UDPBufferSize, GossipInterval
PACKET = 28 + 32  # bytes around a message: UDP and IP, memberlist's and Serf's heads, a share of the encryption's
MEMBER = 250  # bytes of a message about a member: name, address, tags, states
PROBES = 4 * 90  # bytes a second: a probe and its answer, once a second, of each node and on average to each node
PUSH_PULL = 30.0  # seconds up to 32 nodes
RECONNECT = 30.0  # seconds between two attempts to reach a failed member


def spread(nodes: int) -> float:
    """Seconds until an event is everywhere: a line through what was measured, over the logarithm of the nodes."""
    (least, first), (most, last) = MEASURED[0], MEASURED[-1]
    return first + (last - first) * (math.log10(nodes) - math.log10(least)) / (math.log10(most) - math.log10(least))


def arrives(rate: float) -> float:
    """How likely a message of so many a second in the whole cluster reaches a node.

    That is what BUDGET has room for, less what a node is sent twice; so it is taken not to depend on the nodes.
    """
    return min(1.0, GETS_THROUGH / rate) if rate else 1.0


def copies(nodes: int) -> int:
    """How often each node sends a message on (RetransmitMult 4; retransmitLimit in memberlist's util.go)."""
    return 4 * math.ceil(math.log10(nodes + 1))


def push_pull_period(nodes: int) -> float:
    """Seconds between two exchanges of all members that a node begins (pushPullScale)."""
    return PUSH_PULL * (1 if nodes <= 32 else math.ceil(math.log2(nodes) - 5) + 1)


def carried(wanted: float) -> float:
    """The part that is sent of so many bytes a second."""
    return min(1.0, BUDGET / wanted) if wanted else 1.0


def at_rest(nodes: int) -> float:
    """Bytes a second, sent and received, of a node that nothing happens to."""
    return PROBES + 2 * 2 * nodes * MEMBER / push_pull_period(nodes)
