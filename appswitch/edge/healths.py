"""What all gateways say of the backends of external servers: each knows for itself (edge/backends.py)."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress

import trio
from attrs import frozen

from appswitch.edge.backends import Backends, Who
from appswitch.edge.peer_channel import Caller
from appswitch.edge.peers import Peers
from appswitch.model import Health, HealthState
from appswitch.wire.peer import AskHealths, Healths

ANSWERS_WITHIN = 1.0  # seconds

ByGateway = dict[str, dict[Who, Health]]


def _nobody() -> Collection[str]:
    return ()


@frozen
class GatewayHealths:
    """As node `node` hears of it. own: None: it is no gateway itself; gateways: the others."""

    node: str
    own: Backends | None
    peers: Peers | None = None
    gateways: Callable[[], Collection[str]] = _nobody

    async def all(self) -> ByGateway:
        """Of each gateway that answers, the backends that it has tried."""
        told: ByGateway = {}
        if self.own is not None:
            told[self.node] = self.own.healths.known()
        async with trio.open_nursery() as nursery:
            for each in self.gateways():
                nursery.start_soon(self._ask, each, told)
        return dict(sorted(told.items()))

    async def _ask(self, gateway: str, told: ByGateway) -> None:
        assert self.peers is not None
        with suppress(OSError):
            answer = await self.peers.ask(gateway, AskHealths(), ANSWERS_WITHIN)
            if isinstance(answer, Healths):
                told[gateway] = {
                    (host, port): Health(state, reason=reason) for host, port, state, reason in answer.backends
                }

    async def answer(self, _caller: Caller, _said: AskHealths) -> Healths:
        """Of Peers.handlers."""
        known = self.own.healths.known() if self.own is not None else {}
        return Healths([(*who, each.state, each.reason) for who, each in known.items()])


def of_backend(told: ByGateway, who: Who) -> dict[str, Health]:
    """What each gateway says of one."""
    return {gateway: known.get(who, Health(HealthState.UNKNOWN)) for gateway, known in told.items()}
