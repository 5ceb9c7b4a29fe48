"""The registry of a node and the file that keeps it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from appswitch.core.service_table import ServiceTable
from appswitch.edge.apps import Apps
from appswitch.edge.epoch import Epoch
from appswitch.edge.events import Events
from appswitch.edge.externals import FILE, Externals
from appswitch.edge.healths import GatewayHealths
from appswitch.edge.listeners import ListenerSockets
from appswitch.errors import AppSwitchError
from appswitch.wire.externals import Kept

DB = Kept("db", ("5432:db.example.com:5432",), None, ("grp=1",), 7.0)


class Node:
    """A life of a node."""

    def __init__(self, directory: Path, life: int) -> None:
        self.epoch = Epoch()
        self.sockets = ListenerSockets(directory / f"listeners-{life}")
        self.apps = Apps(ServiceTable("n1"), self.sockets, self.epoch, Events("n1"))
        self.externals = Externals(self.apps, directory, GatewayHealths("n1", None))
        self.externals.load()

    def names(self) -> dict[str | None, str]:
        return {app.name: str(app.ip) for app in self.apps.table.externals.values()}


class Lives:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.nodes: list[Node] = []

    def next(self) -> Node:
        self.nodes.append(Node(self.directory, len(self.nodes)))
        return self.nodes[-1]


@pytest.fixture
def lives(tmp_path: Path) -> Iterator[Lives]:
    made = Lives(tmp_path)
    yield made
    for node in made.nodes:
        node.epoch.close()
        node.sockets.close()


async def test_what_is_registered_outlives_us(lives: Lives) -> None:
    node = lives.next()
    added = node.externals.add(DB)
    assert (added.external, added.started, added.tags) == (True, 7.0, (("grp", "1"),))
    again = lives.next()
    (back,) = again.apps.table.externals.values()
    assert (back.name, back.ip, back.tags, back.started, back.derived) == ("db", added.ip, added.tags, 7.0, True)
    assert [each.outside for each in again.apps.table.services()] == [("db.example.com", 5432)]
    again.externals.remove("db")
    assert lives.next().names() == {}


async def test_they_are_not_swept_away(lives: Lives) -> None:
    node = lives.next()
    node.externals.add(DB)
    node.apps.sweep()
    assert list(node.names()) == ["db"]
    assert len(list(node.apps.table.services())) == 1


async def test_clients_learn_of_them(lives: Lives) -> None:
    node = lives.next()
    before = node.epoch.now
    node.externals.add(DB)
    added = node.epoch.now
    node.externals.remove("db")
    assert before != added != node.epoch.now


async def test_what_can_not_be_kept_does_not_count(lives: Lives) -> None:
    node = lives.next()
    node.externals.directory = lives.directory / "absent"
    with pytest.raises(AppSwitchError) as error:
        node.externals.add(DB)
    assert error.value.reason == "not-kept"
    assert node.names() == {}


async def test_removing_what_is_not_there(lives: Lives) -> None:
    node = lives.next()
    node.apps.table.new_app(name="web", ip=None)
    for name in ("db", "web"):
        with pytest.raises(AppSwitchError, match=name):
            node.externals.remove(name)
    assert node.apps.table.resolve("web")


async def test_a_file_that_can_not_be_read_is_kept_aside(lives: Lives) -> None:
    (lives.directory / FILE).write_text("{")
    node = lives.next()
    assert node.names() == {}
    node.externals.add(DB)
    assert (lives.directory / (FILE + ".aside-1")).read_text() == "{"


async def test_one_that_can_not_be_had_back_is_kept_still(lives: Lives) -> None:
    file = lives.directory / FILE
    lives.next().externals.add(DB)
    content = json.loads(file.read_text())
    content["externals"].insert(0, {"name": "bad", "backends": ["nonsense"], "ip": None, "tags": [], "started": 0})
    file.write_text(json.dumps(content))
    node = lives.next()
    assert list(node.names()) == ["db"]
    node.externals.add(Kept("other", ("1:a:1",)))
    assert [each["name"] for each in json.loads(file.read_text())["externals"]] == ["bad", "db", "other"]
    node.externals.remove("bad")
    assert [each["name"] for each in json.loads(file.read_text())["externals"]] == ["db", "other"]
