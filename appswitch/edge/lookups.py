"""Names that no app has, looked up by a gateway: an inner host may have no way to any name server.

The question goes to a gateway over the peer channel, which asks its own name servers. Gateways take turns, on their
own account: else a look-up and the connect after it would always meet different ones. Where none answers, and on a
gateway, it is our own name servers that are asked.
"""

from __future__ import annotations

import errno

import trio
from attrs import define

from appswitch.core.exits import Exits
from appswitch.edge.dns import Resolver, Upstream
from appswitch.edge.peer_channel import Caller, UnreachableError
from appswitch.edge.peers import Peers
from appswitch.wire.peer import LookedUp, LookUp

ANSWERS_WITHIN = 3.0  # seconds; programs ask again after 5 (resolv.conf(5))
MOST_TRIED = 2  # gateways
MOST_AT_ONCE = 128  # look-ups of others under way: half of what one channel answers at once (edge/peer_channel.py)


@define
class ByGateways(Resolver):
    """Asks them. exits: of its own; own: our host's name servers."""

    exits: Exits
    peers: Peers
    own: Upstream

    async def ask(self, query: bytes, udp: bool) -> bytes | None:
        """As of Upstream."""
        gateways = () if self.exits.here else self.exits.others()
        for gateway in self.exits.order(gateways, trio.current_time())[:MOST_TRIED]:
            try:
                answer = await self.peers.ask(gateway, LookUp(query, udp), ANSWERS_WITHIN)
            except UnreachableError:
                self.exits.failed(gateway, trio.current_time())
            except OSError:  # its name servers don't answer
                self.exits.worked(gateway)
            else:
                self.exits.worked(gateway)
                if isinstance(answer, LookedUp) and answer.reply[:2] == query[:2]:
                    return answer.reply
        return await self.own.ask(query, udp)


@define
class ForOthers:
    """Answers those of other nodes, on a gateway."""

    exits: Exits
    own: Upstream
    _under_way: int = 0

    async def answer(self, _caller: Caller, said: LookUp) -> LookedUp:
        """Of Peers.handlers. OSError when there is no answer."""
        if not self.exits.here:
            raise OSError(errno.ENETUNREACH, "this node is no gateway")
        if self._under_way >= MOST_AT_ONCE:
            raise OSError(errno.EBUSY, "too many look-ups are under way")
        self._under_way += 1
        try:
            with trio.move_on_after(ANSWERS_WITHIN):
                reply = await self.own.ask(said.query, said.udp)
                if reply is not None:
                    return LookedUp(reply)
        finally:
            self._under_way -= 1
        raise OSError(errno.ETIMEDOUT, "no name server answers")
