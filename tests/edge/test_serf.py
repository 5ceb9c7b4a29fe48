"""Real Serf agents, each on a loopback address of its own."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
import trio
from attrs import evolve

from appswitch.core.membership import Member
from appswitch.edge import serf as serf_module
from appswitch.edge.serf import MAX_EVENT, MembersChanged, Message, Reconnected, Serf, SerfSettings, UserEvent
from appswitch.edge.serf_joins import joined
from appswitch.errors import AppSwitchError

pytestmark = pytest.mark.program("serf")

KEY = "MbDrUSPe1q3rvdh0NxTBhaDNoGeMDUnZiaBObVfwrfg="
OTHER_KEY = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
WITHIN = 60.0  # seconds; the machine may be busy
Log = list[MutableMapping[str, Any]]

_numbers = itertools.count(os.getpid() * 64)


def free_address() -> tuple[str, int]:
    """An address that no other test has, 127.x.y.z, and a port that is free there."""
    number = next(_numbers) % (1 << 24) | 1 << 20
    host = socket.inet_ntoa((0x7F000000 | number).to_bytes(4, "big"))
    with socket.socket() as trial:
        trial.bind((host, 0))
        port: int = trial.getsockname()[1]
        return host, port


@pytest.fixture
def log() -> Iterator[Log]:
    with structlog.testing.capture_logs() as captured:
        yield captured


class Node:
    """A running one."""

    def __init__(self, serf: Serf, settings: SerfSettings) -> None:
        self.serf = serf
        self.settings = settings
        self.heard: list[Message] = []

    @property
    def address(self) -> tuple[str, int]:
        return self.settings.bind

    @property
    def agent_pid(self) -> int:
        assert self.serf._agent is not None
        return self.serf._agent.pid

    async def sees(self, **expected: str) -> dict[str, Member]:
        """Once the nodes and their states are these."""
        while True:
            members = {each.name: each for each in await self.serf.members()}
            if {each.name: each.status.value for each in members.values()} == expected:
                return members
            await trio.sleep(0.02)

    async def finds(self, node: Node, **expected: str) -> None:
        """Once it sees this, and that one by its name."""
        while True:
            if (await self.sees(**expected))[node.settings.node].address == node.address[0]:
                return
            await trio.sleep(0.02)

    async def sees_tag(self, node: str, tag: str) -> None:
        """Once that node has it."""
        await eventually(lambda: node in self.serf._nodes and tag in self.serf._nodes[node].tags)

    async def hears(self, expected: set[UserEvent]) -> None:
        await eventually(lambda: expected <= set(self.heard))

    async def listen(self) -> None:
        async for message in self.serf.messages:
            self.heard.append(message)


async def eventually(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 (what agents do is no event here)
        await trio.sleep(0.02)


class Nodes:
    """Makes settings, and runs nodes by them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def settings(self, node: str, *join: tuple[str, int], key: str | None = KEY) -> SerfSettings:
        address = free_address()
        return SerfSettings(node, self._directory / address[0], address, join, key)

    @asynccontextmanager
    async def run(self, settings: SerfSettings, *, leaves: bool = False) -> AsyncIterator[Node]:
        """In the end it takes leave, or is killed."""
        node = Node(Serf(settings), settings)
        async with trio.open_nursery() as nursery:
            await nursery.start(node.serf.run)
            nursery.start_soon(node.listen)
            with trio.fail_after(WITHIN):
                yield node
            if not leaves:
                os.kill(node.agent_pid, signal.SIGKILL)
            nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def two(self) -> AsyncIterator[tuple[Node, Node]]:
        """The nodes a and b, who know of each other."""
        async with self.run(self.settings("a")) as a, self.run(self.settings("b", a.address)) as b:
            await a.sees(a="alive", b="alive")
            await b.sees(a="alive", b="alive")
            yield a, b


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    return Nodes(tmp_path)


async def test_one_address_is_enough_to_join(nodes: Nodes) -> None:
    async with nodes.two() as (a, b):
        (found,) = [each for each in await b.serf.members() if each.name == "a"]
        assert (found.address, found.port) == a.address
        assert a.heard[0] == b.heard[0] == Reconnected()
        await eventually(lambda: MembersChanged() in a.heard)


async def test_events_of_any_bytes_reach_all(nodes: Nodes) -> None:
    payloads = [bytes(range(256)), b"", b"\xc1" * MAX_EVENT]
    expected = {UserEvent(each) for each in payloads}
    async with nodes.two() as (a, b):
        for payload in payloads:
            await b.serf.event(payload)
        for node in (a, b):
            await node.hears(expected)
        with pytest.raises(ValueError, match="481 bytes; 480 at most"):
            await a.serf.event(bytes(MAX_EVENT + 1))


async def test_tags_replace_those_before(nodes: Nodes) -> None:
    async with nodes.two() as (a, b):
        for tags in ({"s": "1", "p": "7947"}, {"s": "2"}):
            await b.serf.set_tags(tags)
            while True:
                found = (await a.sees(a="alive", b="alive"))["b"].tags
                if {**found, **tags} == found and found.keys() - tags.keys() == {"c"}:
                    break


async def test_an_event_does_not_wait_for_tags(nodes: Nodes) -> None:
    done: list[str] = []
    async with nodes.two() as (a, b):
        await eventually(lambda: b.serf._tagging is not b.serf._rpc)

        async def tag() -> None:
            await b.serf.set_tags({"s": "1"})
            done.append("tags")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(tag)
            await trio.lowlevel.checkpoint()
            await b.serf.event(b"first")
            done.append("event")
        await a.hears({UserEvent(b"first")})
    assert done == ["event", "tags"]  # Serf answers to tags once they have been sent twice


async def test_too_many_tags_are_complained_about_once(nodes: Nodes, log: Log) -> None:
    async with nodes.run(nodes.settings("a")) as a:
        for _ in range(2):
            await a.serf.set_tags({"x": "y" * 512})
    assert [each["event"] for each in log] == ["Serf doesn't do what it should"]


async def test_one_that_leaves_has_left(nodes: Nodes) -> None:
    async with nodes.run(nodes.settings("a")) as a:
        async with nodes.run(nodes.settings("b", a.address), leaves=True):
            await a.sees(a="alive", b="alive")
        await a.sees(a="alive", b="left")


async def test_one_that_is_killed_has_failed_and_comes_back(nodes: Nodes) -> None:
    async with nodes.run(nodes.settings("a")) as a:
        settings = nodes.settings("b", a.address)
        async with nodes.run(settings):
            await a.sees(a="alive", b="alive")
        await a.sees(a="alive", b="failed")
        async with nodes.run(evolve(settings, join=())):  # the other one looks for it
            await a.sees(a="alive", b="alive")


async def test_an_agent_that_is_killed_is_started_again(nodes: Nodes, log: Log) -> None:
    async with nodes.two() as (a, b):
        await b.serf.set_tags({"s": "1"})
        killed = b.agent_pid
        b.heard.clear()
        os.kill(killed, signal.SIGKILL)
        await eventually(lambda: Reconnected() in b.heard)
        assert b.agent_pid != killed
        await eventually(lambda: b.serf._settled)
        await b.sees(a="alive", b="alive")  # without being told where a is
        await a.sees_tag("b", "s")
        await b.serf.event(b"again")
        await eventually(lambda: UserEvent(b"again") in a.heard)
        await eventually(lambda: len(a.serf._members) == 2)  # nothing is left of the old one
    assert len([each for each in log if "started again" in str(each["event"])]) == 1


async def test_an_agent_that_hangs_is_replaced(nodes: Nodes) -> None:
    async with nodes.two() as (a, b):
        os.kill(b.agent_pid, signal.SIGSTOP)
        b.heard.clear()
        await eventually(lambda: Reconnected() in b.heard)
        await a.sees(a="alive", b="alive")


async def test_a_node_that_is_forgotten_is_found_again(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serf_module, "SEEK_EVERY", 2)
    async with nodes.two() as (a, b):
        settings = nodes.settings("c", a.address)
        async with nodes.run(settings):
            await a.sees(a="alive", b="alive", c="alive")
        await a.sees(a="alive", b="alive", c="failed")
        await a.serf.force_leave("c")
        for each in (a, b):
            await each.sees(a="alive", b="alive")
        async with nodes.run(evolve(settings, join=())):
            await b.sees(a="alive", b="alive", c="alive")


async def test_distances(nodes: Nodes) -> None:
    async with nodes.two() as (a, _):
        assert a.serf.distance("nobody") is None
        await eventually(lambda: a.serf.distance("b"))
        assert 0 < (a.serf.distance("b") or 0) < WITHIN


# --- What stands in the way ---


async def test_another_key_is_told_on_both_sides(nodes: Nodes, log: Log) -> None:
    def told() -> set[tuple[str, str]]:
        return {(each["event"], each["reason"]) for each in log}

    async with nodes.run(nodes.settings("a")) as a:
        peer = a.address
        async with nodes.run(nodes.settings("b", peer, key=OTHER_KEY)), nodes.run(nodes.settings("c", peer, key=None)):
            await eventually(lambda: len(told()) == 4)
            assert len(await a.serf.members()) == 1
    assert told() == {
        ("can't join", "its key is another"),
        ("a host can't join us", "its key is another"),
        ("can't join", "it has a key, and this node has none"),
        ("a host can't join us", "it has no key, and this node has one"),
    }
    assert len(log) == 4  # each is said once


async def test_a_peer_that_isnt_there_yet(nodes: Nodes, log: Log) -> None:
    settings = nodes.settings("a")
    async with nodes.run(nodes.settings("b", settings.bind, ("nowhere.invalid", 7946))) as b:
        await eventually(lambda: len(log) == 2)
        async with nodes.run(settings):
            await b.sees(a="alive", b="alive")
    told = {each["peer"]: each["reason"] for each in log if each["event"] == "can't join"}
    assert told == {
        joined(*settings.bind): "it can't be reached: Connection refused",
        "nowhere.invalid:7946": "it can't be reached: its name isn't known (Name or service not known)",
    }


# --- Names ---


async def test_a_taken_name_is_refused(nodes: Nodes, log: Log) -> None:
    async with nodes.run(nodes.settings("b")) as b:
        async with nodes.run(nodes.settings("a", b.address), leaves=True) as a:
            await b.finds(a, a="alive", b="alive")
            async with nodes.run(nodes.settings("a", b.address)) as second:
                await eventually(lambda: second.serf.refused)
                where = joined(*a.address)
                assert second.serf.refused == f"the name 'a' is taken by the node at {where}, which was there before"
                assert await second.serf.members() == []
                for node in (a, b):
                    await node.finds(a, a="alive", b="alive")
                assert a.serf.refused is None
                await second.serf.event(b"I am a")
                await a.serf.event(b"no, I am")
                await eventually(lambda: UserEvent(b"no, I am") in b.heard)
                assert UserEvent(b"I am a") not in b.heard
    assert [each["event"] for each in log if each["event"] not in ("joined", "can't join")] == [
        "this node isn't let in"
    ]


async def test_a_name_that_is_free_again_is_taken(nodes: Nodes, log: Log, nursery: trio.Nursery) -> None:
    first, over = nodes.settings("a"), trio.Event()

    async def run_first() -> None:
        async with nodes.run(first, leaves=True):
            await over.wait()

    nursery.start_soon(run_first)
    async with nodes.run(nodes.settings("b", first.bind)) as b:
        await b.sees(a="alive", b="alive")
        async with nodes.run(nodes.settings("a", b.address)) as second:
            await eventually(lambda: second.serf.refused)
            over.set()
            await b.finds(second, a="alive", b="alive")
            await second.sees(a="alive", b="alive")
    told = [each["event"] for each in log if "this node" in each["event"]]
    assert told == ["this node isn't let in", "this node's name isn't taken any more"]


async def test_the_older_keeps_its_name_over_a_restart(nodes: Nodes) -> None:
    first = nodes.settings("a")
    async with nodes.run(nodes.settings("b")) as b:
        async with nodes.run(evolve(first, join=(b.address,))):
            await b.sees(a="alive", b="alive")
        async with nodes.run(nodes.settings("a", b.address)) as second:
            await eventually(lambda: second.serf.refused)
            await eventually(lambda: second.serf.refused and "can't be reached" in second.serf.refused)
            async with nodes.run(first) as a:
                await b.finds(a, a="alive", b="alive")
                assert second.serf.refused


async def test_of_two_alone_the_older_wins_although_it_was_away(nodes: Nodes) -> None:
    first = nodes.settings("a")
    async with nodes.run(first) as a:
        await a.sees(a="alive")
    async with nodes.run(nodes.settings("a", first.bind)) as second:
        async with nodes.run(first) as a:
            await eventually(lambda: second.serf.refused)
            assert a.serf.refused is None


async def test_a_node_that_lost_its_disk_keeps_its_name(nodes: Nodes) -> None:
    settings = nodes.settings("a")
    async with nodes.run(nodes.settings("b")) as b:
        async with nodes.run(evolve(settings, join=(b.address,))):
            await b.sees(a="alive", b="alive")
        again = evolve(settings, join=(b.address,), directory=settings.directory.with_name("another disk"))
        async with nodes.run(again) as a:
            await a.sees(a="alive", b="alive")
            assert a.serf.refused is None
            await eventually(lambda: len(b.serf._members) == 2)  # and nothing is left of the one before


# --- Starting ---


async def test_keys_are_in_a_file_of_ours_alone(nodes: Nodes) -> None:
    settings = nodes.settings("a")
    settings.directory.mkdir()
    (settings.directory / "agent.json").touch(mode=0o644)
    async with nodes.run(settings) as a:
        file = settings.directory / "agent.json"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert json.loads(file.read_text())["encrypt_key"] == KEY
        arguments = await trio.Path(f"/proc/{a.agent_pid}/cmdline").read_bytes()
        assert KEY.encode() not in arguments
        assert arguments.startswith(b"serf\0agent\0")


async def test_a_taken_port(nodes: Nodes) -> None:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        settings = nodes.settings("a")
        with socket.socket(socket.AF_INET, kind) as taken:
            taken.bind(settings.bind)
            with pytest.raises(AppSwitchError, match="is taken") as raised:
                await Serf(settings).run()
        assert raised.value.reason == "port-taken"


async def test_an_address_of_another_host(nodes: Nodes) -> None:
    with pytest.raises(AppSwitchError, match=r"198\.51\.100\.1:7946 is no address of this host"):
        await Serf(evolve(nodes.settings("a"), bind=("198.51.100.1", 7946))).run()


@pytest.mark.root
def test_a_loopback_device_that_is_down(tmp_path: Path) -> None:
    code = f"""
import trio
from pathlib import Path
from appswitch.edge.serf import Serf, SerfSettings
trio.run(Serf(SerfSettings("a", Path({str(tmp_path)!r}), ("127.0.0.1", 7946))).run)
"""
    command = ["unshare", "--net", sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=WITHIN)
    assert done.stderr.endswith(
        "AppSwitchError: 127.0.0.1, by which the Serf agent is asked, has no route here: Network is unreachable\n"
        "hint: `ip link set lo up`\n"
    )


async def test_no_serf(nodes: Nodes) -> None:
    with pytest.raises(AppSwitchError, match="no-such-serf") as raised:
        await Serf(evolve(nodes.settings("a"), program="no-such-serf")).run()
    assert "Debian package serf" in raised.value.hint


async def test_an_agent_that_doesnt_start(nodes: Nodes) -> None:
    with pytest.raises(AppSwitchError, match=r"Serf agent doesn't start: .*illegal base64") as raised:
        await Serf(nodes.settings("a", key="?")).run()
    assert raised.value.reason == "serf-failed"
