"""Look-ups by gateways: who is asked, and what comes next when it doesn't answer."""

from __future__ import annotations

import errno
from collections.abc import Sequence

import pytest
import trio
from attrs import define, field

from appswitch.core.exits import Exits
from appswitch.edge import lookups
from appswitch.edge.dns import Upstream
from appswitch.edge.lookups import ByGateways, ForOthers
from appswitch.edge.peer_channel import Caller, UnreachableError
from appswitch.edge.peers import Peers
from appswitch.wire.peer import Answer, LookedUp, LookUp, Request
from appswitch.wire.peer_channel import Session

QUERY = b"\x12\x34" + bytes(15)
CALLER = Caller("inner", Session(b"s" * 32))


class NameServers(Upstream):
    """What they say, each time they are asked; None: nothing."""

    def __init__(self, said: bytes | None) -> None:
        super().__init__([])
        object.__setattr__(self, "said", said)

    async def ask(self, query: bytes, udp: bool) -> bytes | None:
        await trio.lowlevel.checkpoint()
        said: bytes | None = self.said  # type: ignore[attr-defined]
        return said and query[:2] + said


class Gateways(Peers):
    """answers: of each gateway; an error is raised."""

    def __init__(self, answers: dict[str, Answer | OSError]) -> None:
        super().__init__("inner", b"k" * 32, lambda _: None)
        self.answers = answers
        self.asked: list[str] = []

    async def ask(self, node: str, request: Request, patience: float) -> Answer:
        await trio.lowlevel.checkpoint()
        assert request == LookUp(QUERY, udp=True)
        self.asked.append(node)
        answer = self.answers[node]
        if isinstance(answer, OSError):
            raise answer
        return answer


@define
class World:
    answers: dict[str, Answer | OSError]
    here: bool = False
    gateways: Gateways = field(init=False)
    resolver: ByGateways = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.gateways = Gateways(self.answers)
        exits = Exits(self.here, others=lambda: list(self.answers))
        self.resolver = ByGateways(exits, self.gateways, NameServers(b"own"))

    async def ask(self, times: int = 1) -> Sequence[bytes | None]:
        return [await self.resolver.ask(QUERY, udp=True) for _ in range(times)]


async def test_gateways_take_turns() -> None:
    world = World({"g1": LookedUp(QUERY[:2] + b"one"), "g2": LookedUp(QUERY[:2] + b"two")})
    assert await world.ask(4) == [QUERY[:2] + b"one", QUERY[:2] + b"two"] * 2


async def test_one_that_does_not_answer_is_passed_over_and_put_aside() -> None:
    silent = UnreachableError(errno.ETIMEDOUT, "silent")
    world = World({"g1": silent, "g2": LookedUp(QUERY[:2] + b"two")})
    assert await world.ask(3) == [QUERY[:2] + b"two"] * 3
    assert world.gateways.asked == ["g1", "g2", "g2", "g2"]


@pytest.mark.parametrize(
    "answer", [OSError(errno.ETIMEDOUT, "no name server"), LookedUp(b"\0\0another"), LookedUp(b"")]
)
async def test_where_no_gateway_knows_the_hosts_own_name_servers_are_asked(answer: Answer | OSError) -> None:
    world = World(dict.fromkeys(["g1", "g2", "g3"], answer))
    assert await world.ask() == [QUERY[:2] + b"own"]
    assert len(world.gateways.asked) == lookups.MOST_TRIED, "programs don't wait for ever"


@pytest.mark.parametrize("answers", [{}, {"g1": LookedUp(QUERY[:2] + b"one")}])
async def test_a_gateway_asks_nobody_else(answers: dict[str, Answer | OSError]) -> None:
    world = World(answers, here=True)
    assert await world.ask() == [QUERY[:2] + b"own"]
    assert not world.gateways.asked


async def test_for_others() -> None:
    said = await ForOthers(Exits(here=True), NameServers(b"said")).answer(CALLER, LookUp(QUERY, udp=False))
    assert said == LookedUp(QUERY[:2] + b"said")


@pytest.mark.parametrize(("here", "error"), [(False, errno.ENETUNREACH), (True, errno.ETIMEDOUT)])
async def test_for_others_without_an_answer(here: bool, error: int) -> None:
    with pytest.raises(OSError, match=r"gateway|answers") as failed:
        await ForOthers(Exits(here), NameServers(None)).answer(CALLER, LookUp(QUERY, udp=True))
    assert failed.value.errno == error


async def test_others_have_so_much_room(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookups, "MOST_AT_ONCE", 2)

    class Slow(NameServers):
        async def ask(self, query: bytes, udp: bool) -> bytes | None:
            await trio.sleep_forever()
            return None

    answering = ForOthers(Exits(here=True), Slow(None))
    for _ in range(2):
        nursery.start_soon(answering.answer, CALLER, LookUp(QUERY, udp=True))
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(OSError, match="too many"):
        await answering.answer(CALLER, LookUp(QUERY, udp=True))
    nursery.cancel_scope.cancel()
