"""Joining other agents, and saying once, until it changes, why it doesn't work.

Whether a host is there at all is tried by a TCP connect first: Serf's own takes 10 s to fail, and says less.
"""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Collection

import structlog
import trio
from attrs import define, field

from appswitch.edge.serf_rpc import Rpc, RpcError

log = structlog.get_logger()

REACH_WITHIN = 1.0  # seconds, for a TCP connect
JOIN_WITHIN = 15.0  # seconds; Serf itself gives up after 10
REMEMBERED = 256  # hosts of which we have said something

Address = tuple[str, int]

_KEYS = {
    "No installed keys could decrypt the message": "its key is another",
    "Remote state is encrypted and encryption is not configured": "it has a key, and this node has none",
    "Encryption is configured but remote state is not encrypted": "it has no key, and this node has one",
}
"""What Serf says at either side (memberlist's net.go) -> what it means."""
KEEPS_TRYING = "this node keeps trying"
_KEY_HINT = f"all nodes need the same --key-file; {KEEPS_TRYING}"
_REFUSED = re.compile(r"memberlist: failed to receive: (.*) from=(.*):\d+")


@define
class Joins:
    """own: the address that we have in the cluster, once known."""

    own: Address | None = None
    _said: dict[Address, str] = field(factory=dict)
    _strangers: set[tuple[str, str]] = field(factory=set)

    async def join(self, rpc: Rpc, peers: Collection[Address], alive: set[Address]) -> bool:
        """Whether that worked for one of them, or there is none but ourselves and those who are `alive` already.

        OSError, ValueError: the connection to our agent is of no use.
        """
        reached: dict[Address, Address | OSError] = {}
        async with trio.open_nursery() as nursery:
            for peer in peers:
                nursery.start_soon(_reach, peer, reached)
        others = {peer: found for peer, found in reached.items() if found != self.own and found not in alive}
        return any([await self._join(rpc, *each) for each in others.items()]) or not others

    async def _join(self, rpc: Rpc, peer: Address, found: Address | OSError) -> bool:
        if isinstance(found, OSError):
            self._say(peer, f"it can't be reached: {found}")
            return False
        try:
            await rpc.ask("join", {"Existing": [joined(*found)], "Replay": False}, JOIN_WITHIN)
        except RpcError as error:
            self._say(peer, *_explain(str(error)))
            return False
        log.info("joined", peer=joined(*peer))
        self._said.pop(peer, None)
        return True

    def hear(self, line: str) -> None:
        """A line of our agent's log."""
        match = _REFUSED.search(line)
        if match is not None and match[1] in _KEYS and len(self._strangers) < REMEMBERED:
            stranger = match[2], _KEYS[match[1]]
            if stranger not in self._strangers:
                self._strangers.add(stranger)
                log.warning("a host can't join us", host=stranger[0], reason=stranger[1])

    def _say(self, peer: Address, reason: str, hint: str = KEEPS_TRYING) -> None:
        if self._said.get(peer) != reason:
            if len(self._said) >= REMEMBERED:
                self._said.clear()
            self._said[peer] = reason
            log.warning("can't join", peer=joined(*peer), reason=reason, hint=hint)


def _explain(error: str) -> tuple[str, str]:
    """(reason, hint) of what `join` says, which is a list of errors, one a line."""
    for theirs, ours in _KEYS.items():
        if theirs in error:
            return ours, _KEY_HINT
    return error.rpartition("* ")[2].strip() or error, KEEPS_TRYING


async def _reach(peer: Address, reached: dict[Address, Address | OSError]) -> None:
    """Its address as a number, or what is wrong."""
    try:
        with trio.fail_after(REACH_WITHIN):
            async with await trio.open_tcp_stream(*peer) as stream:
                reached[peer] = stream.socket.getpeername()[:2]
    except trio.TooSlowError:
        reached[peer] = OSError(f"no answer within {REACH_WITHIN:g} s")
    except socket.gaierror as error:
        reached[peer] = OSError(f"its name isn't known ({error.strerror})")
    except OSError as error:  # trio's own; its cause is that of the one address, or a group of those of several
        first: object = getattr(error.__cause__, "exceptions", (error.__cause__,))[0]
        reached[peer] = OSError(os.strerror(getattr(first, "errno", None) or errno.EHOSTUNREACH))


def joined(host: str, port: int) -> str:
    """`ADDR:PORT`, or `[V6]:PORT`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
