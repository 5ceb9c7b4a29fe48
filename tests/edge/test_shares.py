"""Callers take turns, and have their shares; without a server."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest
import trio
import trio.testing

from appswitch.edge.apps import Credentials
from appswitch.edge.shares import TURNS, Channels, Key, Turns, key_of

GREEDY, MODEST = (1, 0), (2, 0)


@pytest.fixture
async def turns(nursery: trio.Nursery) -> Turns:
    made = Turns()
    nursery.start_soon(made.run)
    await trio.testing.wait_all_tasks_blocked()
    return made


async def take(turns: Turns, key: Key, taken: list[Key]) -> None:
    if not turns.begins(key):
        await turns.wait(key)
    taken.append(key)


async def test_who_has_little_never_waits(turns: Turns) -> None:
    for _ in range(3):
        assert [turns.begins(MODEST) for _ in range(TURNS)] == [True] * TURNS
        await trio.lowlevel.checkpoint()  # the next round


async def test_each_has_its_turn(turns: Turns) -> None:
    """Of a hundred requests that came before, few are begun before the one that comes last."""
    taken: list[Key] = []
    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(take, turns, GREEDY, taken)
        await trio.lowlevel.checkpoint()
        nursery.start_soon(take, turns, MODEST, taken)
    assert taken.count(GREEDY) == 100, "nobody is forgotten"
    assert taken.index(MODEST) <= 4 * TURNS


async def test_who_goes_while_it_waits(turns: Turns) -> None:
    taken: list[Key] = []
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(take, turns, GREEDY, taken)
        await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    before = len(taken)
    with trio.fail_after(5):
        for _ in range(20):
            await take(turns, GREEDY, taken)
    assert len(taken) == before + 20


def test_keys() -> None:
    """An app is its namespace, whoever runs there; in the host's, a user is."""
    one, other = Credentials(pid=1, uid=0, netns=7), Credentials(pid=2, uid=9, netns=7)
    assert key_of(one, netns=5) == key_of(other, netns=5)
    assert key_of(one, netns=7) != key_of(other, netns=7)


def has_ended(far: socket.socket) -> bool:
    try:
        far.send(b"x", socket.MSG_DONTWAIT)
    except BrokenPipeError:
        return True
    return False


def test_channels() -> None:
    channels = Channels(most=6)
    with ExitStack() as stack:

        def pair() -> list[socket.socket]:
            return [stack.enter_context(each) for each in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)]

        near, far = zip(*(pair() for _ in range(7)), strict=True)
        assert [channels.add(GREEDY, each) for each in near] == [True] * 6 + [False]
        assert [has_ended(each) for each in far] == [True] * 3 + [False] * 4, "the oldest, beyond half of it"
        another, _ = pair()
        assert channels.add(MODEST, another)
        channels.remove(GREEDY, near[0])
        assert channels.add(GREEDY, near[6])
        for each in near:
            channels.remove(GREEDY, each)
        channels.remove(MODEST, another)
        assert channels.add(GREEDY, near[6])
