"""Counters of connects by capability: what an app adds is counted once, whatever else it writes."""

from __future__ import annotations

import errno
import mmap
import os
from collections import Counter
from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest

from appswitch.core.service_table import ServiceTable
from appswitch.edge.counters import MOST, OTHERS, Counters, Page
from appswitch.model import App, Listener
from appswitch.wire.trap import COUNTERS
from tests.harness import open_descriptors

ANY = IPv4Address("0.0.0.0")


class World:
    """Two apps, the second of which serves."""

    def __init__(self) -> None:
        self.table = ServiceTable("n1")
        self.client, self.server = (self.table.new_app(name=name, ip=None) for name in ("web", "db"))
        self.counted: Counter[tuple[str | None, int | None]] = Counter()
        self.counters = Counters(self.table, self.count)

    def listen(self, port: int) -> Listener:
        listener = Listener(self.table.next_listener_id(), self.server, 4, ANY, port, listening=True)
        self.table.add_listener(listener)
        return listener

    def count(self, client: App, listener: Listener | None, count: int) -> None:
        self.counted[client.name, listener.port if listener else None] += count

    def page(self) -> Page:
        page = self.counters.page_of(self.client)
        assert page is not None
        return page


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.counters.close()


def shim(page: Page) -> memoryview:
    """As the shim has it."""
    return memoryview(mmap.mmap(page.fd, 4 * COUNTERS)).cast("I")


def test_what_is_added_is_counted_once(world: World) -> None:
    one, other = world.listen(1), world.listen(2)
    page = world.page()
    slots = [page.slot_of(each) for each in (one, other, one)]
    assert slots[0] == slots[2] != slots[1]
    assert OTHERS not in slots
    memory = shim(page)
    memory[slots[0]] += 3
    memory[slots[1]] += 1
    world.counters.collect()
    memory[slots[0]] += 2
    world.counters.collect()
    world.counters.collect()
    assert world.counted == {("web", 1): 5, ("web", 2): 1}


def test_a_counter_that_wraps_round(world: World) -> None:
    page = world.page()
    slot, memory = page.slot_of(world.listen(1)), shim(page)
    memory[slot] = 0xFFFFFFFF
    world.counters.collect()
    assert world.counted == {("web", 1): MOST}  # an app that claims that many isn't believed
    memory[slot] = 6
    world.counters.collect()
    assert world.counted == {("web", 1): MOST + 7}


def test_slots_are_used_again_once_a_listener_has_gone(world: World) -> None:
    page, memory = world.page(), shim(world.page())
    for round_ in range(3):
        listeners = [world.listen(port) for port in range(1, COUNTERS)]
        slots = {each.port: page.slot_of(each) for each in listeners}
        assert sorted(slots.values()) == list(range(1, COUNTERS))
        assert page.slot_of(world.listen(COUNTERS)) == OTHERS
        memory[slots[7]] += 1
        memory[OTHERS] += 1
        for each in list(world.table.own_listeners()):
            world.table.remove_listener(each.id)
        world.counters.collect()
        assert world.counted == {("web", 7): round_ + 1, ("web", None): round_ + 1}


def test_what_an_app_did_last_is_counted(world: World) -> None:
    before = open_descriptors()
    page = world.page()
    slot = page.slot_of(world.listen(1))
    with shim(page) as memory:
        memory[slot] += 1
        world.counters.forget(world.client)
    world.counters.forget(world.client)
    assert world.counted == {("web", 1): 1}
    assert open_descriptors() == before


def test_an_app_cant_take_the_page_away(world: World) -> None:
    page = world.page()
    for size in (0, 1 << 20):
        with pytest.raises(PermissionError):
            os.ftruncate(page.fd, size)
    world.counters.collect()


def test_no_page_where_there_is_no_room(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "memfd_create", full)
    assert world.counters.page_of(world.client) is None


def test_pages_have_numbers_of_their_own(world: World) -> None:
    apps = [world.table.new_app(name=None, ip=None) for _ in range(50)]
    pages = [world.counters.page_of(each) for each in apps]
    assert len({each.number for each in pages if each}) == 50
    assert 0 not in {each.number for each in pages if each}
    assert world.counters.page_of(apps[0]) is pages[0]


def test_a_page_that_is_not_finished_keeps_no_descriptor(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(os, "ftruncate", full)
    before = open_descriptors()
    assert world.counters.page_of(world.client) is None
    assert open_descriptors() == before
