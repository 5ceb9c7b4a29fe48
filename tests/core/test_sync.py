"""The tables of several nodes become equal, whatever the network and the nodes do before it is quiet."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest
from attrs import define, evolve, field
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from appswitch.core import sync
from appswitch.core.sync import Applied, Copies, Excess, Gap, Log, Old
from appswitch.model import Delta, Summary
from appswitch.wire import records

NODES = ["a", "b", "c", "d"]
KEYS = ["1", "2", "1/1", "1/2"]
VALUES = [b"x", b"y", b"z"]
KEPT = 5  # changes: logs overflow soon
ROUNDS = 4  # of asking everybody; the first may tell a restarted owner of its former life

Entries = dict[str, bytes]
NODE, KEY, VALUE, SEED = (
    st.sampled_from(NODES),
    st.sampled_from(KEYS),
    st.sampled_from(VALUES),
    st.integers(0, 2**32),
)


@define
class Node:
    """A trap handler. tables: what its service table would have, from the changes that it was told of."""

    log: Log
    copies: Copies = field(factory=Copies)
    tables: dict[str, Entries] = field(factory=lambda: defaultdict(dict))
    announced: int = 0

    def take(self, delta: Delta) -> Applied | Gap | Old | Excess:
        taken = self.copies.apply(delta)
        if isinstance(taken, Applied):
            for key, value in taken.changed.items():
                assert self.tables[delta.owner].get(key) != value, "a change changes something"
                if value is None:
                    del self.tables[delta.owner][key]
                else:
                    self.tables[delta.owner][key] = value
        return taken

    def forget(self, owner: str) -> None:
        self.copies.forget(owner)
        self.tables.pop(owner, None)


@define
class Cluster:
    """What is the case: the network, who lives, and whatever anybody ever had."""

    nodes: dict[str, Node] = field(factory=dict)
    saved: dict[str, int] = field(factory=dict)
    """What the state directories say: incarnations."""
    history: dict[tuple[str, int, int], Entries] = field(factory=dict)
    lives: dict[str, set[int]] = field(factory=lambda: defaultdict(set))
    under_way: list[tuple[str, bytes | tuple[str, Summary]]] = field(factory=list)
    """Receiver, and a delta or an owner's summary."""
    apart: set[frozenset[str]] = field(factory=set)
    """Who doesn't reach whom."""

    def start(self, name: str, clock: int, remembers: bool) -> None:
        """Entries are gone after a restart: apps register again. Two lives at one reading of a clock are left out."""
        incarnation = max(clock, self.saved.get(name, -1) + 1 if remembers else 0)
        while incarnation in self.lives[name]:
            incarnation += 1
        self.nodes[name] = Node(Log(name, incarnation, KEPT))
        self.note(name)
        for other in self.nodes.keys() - {name}:  # Serf tells; whoever is apart learns later, here: at once
            self.nodes[other].copies.admit(name)
            self.nodes[name].copies.admit(other)

    def note(self, name: str) -> None:
        log = self.nodes[name].log
        self.saved[name] = log.summary.incarnation
        self.lives[name].add(log.summary.incarnation)
        self.history[name, log.summary.incarnation, log.summary.seq] = dict(log.entries)

    def reach(self, one: str, other: str) -> bool:
        return frozenset((one, other)) not in self.apart

    def announce(self, name: str, room: int) -> None:
        """As events: the changes since the last time, in pieces, or where we are."""
        node = self.nodes[name]
        now = node.log.summary
        delta = node.log.since(Summary(now.incarnation, node.announced, 0))
        node.announced = now.seq
        said: list[bytes | tuple[str, Summary]] = []
        said += records.pieces(delta, room) or [(name, now)]
        for other in NODES:
            if other != name and self.reach(name, other):
                self.under_way += [(other, each) for each in said]

    def deliver(self, receiver: str, said: bytes | tuple[str, Summary]) -> None:
        node = self.nodes.get(receiver)
        if node is None:
            return
        if isinstance(said, bytes):
            delta = records.decode_delta(said)
            if isinstance(node.take(delta), Gap):
                self.pull(receiver, delta.owner)
        elif node.copies.heard(*said):
            self.pull(receiver, said[0])

    def pull(self, asker: str, owner: str) -> None:
        if owner not in self.nodes or not self.reach(asker, owner):
            return
        node = self.nodes[asker]
        delta = self.nodes[owner].log.since(node.copies.summary_of(owner))
        self.note(owner)
        node.take(records.decode_delta(records.encode_delta(delta)))

    def settle(self) -> None:
        """A quiet network: what is under way arrives, and everybody asks everybody."""
        self.apart.clear()
        for node in self.nodes.values():
            for owner in list(node.copies.owners()):
                if owner not in self.nodes:
                    node.forget(owner)
        for _ in range(ROUNDS):
            for asker in self.nodes:
                for owner in self.nodes.keys() - {asker}:
                    self.pull(asker, owner)

    def check(self) -> None:
        """All tables are equal, and nothing is in them but what the living have."""
        for name, node in self.nodes.items():
            for owner in NODES:
                if owner == name:
                    continue
                real = self.nodes[owner].log.entries if owner in self.nodes else {}
                assert node.copies.entries_of(owner) == real
                assert node.tables.get(owner, {}) == real
                if owner in self.nodes:
                    assert node.copies.summary_of(owner) == self.nodes[owner].log.summary


class TablesBecomeEqual(RuleBasedStateMachine):
    """Loss, duplication, reordering, partitions, clocks that go back, restarts that remember or don't, leaving."""

    @initialize()
    def start(self) -> None:
        self.cluster = Cluster()
        for name in NODES:
            self.cluster.start(name, 10, remembers=False)

    @rule(name=NODE, key=KEY, value=st.none() | VALUE, announced=st.booleans(), room=st.sampled_from([34, 40, 480]))
    def change(self, name: str, key: str, value: bytes | None, announced: bool, room: int) -> None:
        if name in self.cluster.nodes:
            log = self.cluster.nodes[name].log
            log.remove(key) if value is None else log.put(key, value)
            self.cluster.note(name)
            if announced:
                self.cluster.announce(name, room)

    @precondition(lambda self: self.cluster.under_way)
    @rule(seed=SEED, count=st.integers(1, 10), again=st.booleans())
    def deliver(self, seed: int, count: int, again: bool) -> None:
        """In any order; again: it will come a second time."""
        rng = random.Random(seed)
        for _ in range(min(count, len(self.cluster.under_way))):
            place = rng.randrange(len(self.cluster.under_way))
            self.cluster.deliver(*self.cluster.under_way[place])
            if not again:
                del self.cluster.under_way[place]

    @precondition(lambda self: self.cluster.under_way)
    @rule(seed=SEED, count=st.integers(1, 10))
    def lose(self, seed: int, count: int) -> None:
        random.Random(seed).shuffle(self.cluster.under_way)
        del self.cluster.under_way[:count]

    @rule(one=NODE, other=NODE)
    def part(self, one: str, other: str) -> None:
        if one != other:
            self.cluster.apart ^= {frozenset((one, other))}

    @rule(name=NODE, clock=st.integers(0, 30), remembers=st.booleans())
    def restart(self, name: str, clock: int, remembers: bool) -> None:
        self.cluster.start(name, clock, remembers)

    @rule(name=NODE)
    def die(self, name: str) -> None:
        """Others keep what it had, for its return."""
        self.cluster.nodes.pop(name, None)

    @rule(name=NODE, witness=NODE)
    def forget(self, name: str, witness: str) -> None:
        """Serf has told one of them that it has left; what it said may still be under way."""
        if name not in self.cluster.nodes and witness in self.cluster.nodes:
            self.cluster.nodes[witness].forget(name)

    @rule(asker=NODE, owner=NODE)
    def pull(self, asker: str, owner: str) -> None:
        if asker != owner and asker in self.cluster.nodes:
            self.cluster.pull(asker, owner)

    @rule()
    def be_quiet(self) -> None:
        self.cluster.settle()
        self.cluster.check()

    @invariant()
    def a_copy_is_what_its_owner_had(self) -> None:
        for node in self.cluster.nodes.values():
            for owner in node.copies.owners():
                at = node.copies.summary_of(owner)
                if at is not None:
                    assert node.copies.entries_of(owner) == self.cluster.history[owner, at.incarnation, at.seq]
                assert node.tables.get(owner, {}) == node.copies.entries_of(owner)

    def teardown(self) -> None:
        if hasattr(self, "cluster"):
            late = list(self.cluster.under_way)
            self.cluster.settle()
            self.cluster.check()
            for receiver, said in late:
                self.cluster.deliver(receiver, said)
            self.cluster.settle()  # of a former life that nobody knew: shows until members are compared again
            self.cluster.check()


TestTablesBecomeEqual = TablesBecomeEqual.TestCase
TestTablesBecomeEqual.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)


# --- the log


def whole(log: Log) -> Delta:
    return log.since(None)


def follower(log: Log) -> Copies:
    copies = Copies()
    copies.admit(log.owner)
    assert isinstance(copies.apply(whole(log)), Applied)
    return copies


def test_what_changes_nothing_is_no_change() -> None:
    log = Log("a", 1)
    log.remove("1")
    log.put("1", b"x")
    log.put("1", b"x")
    assert log.summary.seq == 1
    assert log.since(log.summary) == Delta("a", 1, 1, 1, log.summary.digest)


def test_who_is_a_little_behind_gets_the_changes_and_others_everything() -> None:
    log = Log("a", 1, kept=3)
    known = []
    for number in range(5):
        log.put(str(number), b"x")
        known.append(log.summary)
    assert [key for key, _ in log.since(known[1]).changes] == ["2", "3", "4"]
    assert not log.since(known[1]).whole
    assert log.since(known[0]).whole
    assert log.since(evolve(known[3], incarnation=0)).whole
    assert len(log.since(None).changes) == 5


def test_the_digest_is_of_the_entries_however_they_came() -> None:
    one, other = Log("a", 1), Log("b", 2)
    for key in "123":
        one.put(key, b"x")
    for key in "4321":
        other.put(key, b"y")
        other.put(key, b"x")
    other.remove("4")
    assert one.summary.digest == other.summary.digest != 0
    for key in "123":
        one.remove(key)
    assert one.summary.digest == 0


@given(
    st.dictionaries(st.text(max_size=3), st.binary(max_size=3)),
    st.dictionaries(st.text(max_size=3), st.binary(max_size=3)),
)
def test_different_entries_have_different_digests(one: Entries, other: Entries) -> None:
    logs = []
    for entries in (one, other):
        logs.append(Log("a", 1))
        for key, value in entries.items():
            logs[-1].put(key, value)
    assert (logs[0].summary.digest == logs[1].summary.digest) == (one == other)


@pytest.mark.parametrize("told", [Summary(7, 1, 0), Summary(5, 4, 0)])
def test_a_life_that_was_forgotten_is_outlived(told: Summary) -> None:
    """Its clock went back, and its state directory is empty; others remember."""
    log = Log("a", 5)
    log.put("1", b"x")
    copies = Copies()
    copies.admit("a")
    former = Log("a", told.incarnation)
    for number in range(told.seq):
        former.put(f"9/{number}", b"old")
    copies.apply(whole(former))
    answer = log.since(copies.summary_of("a"))
    assert (answer.incarnation, answer.whole) == (told.incarnation + 1, True)
    assert isinstance(copies.apply(answer), Applied)
    assert copies.entries_of("a") == {"1": b"x"}
    log.outlive(told)
    assert log.summary.incarnation == told.incarnation + 1, "once is enough"


# --- the copies


def test_a_gap_and_how_it_is_filled() -> None:
    log = Log("a", 1)
    copies = follower(log)
    states = []
    for key in "123":
        log.put(key, b"x")
        states.append(log.summary)
    late = log.since(states[1])
    assert copies.apply(evolve(late, digest=None)) == copies.apply(late) == Gap()
    assert copies.entries_of("a") == {}
    assert copies.apply(log.since(copies.summary_of("a"))) == Applied({"1": b"x", "2": b"x", "3": b"x"})
    assert copies.apply(late) == Old()


def test_an_overlap_counts_once() -> None:
    log = Log("a", 1)
    copies = follower(log)
    start = log.summary
    log.put("1", b"x")
    copies.apply(log.since(start))
    log.put("1", b"y")
    log.put("2", b"x")
    log.remove("2")
    assert copies.apply(log.since(start)) == Applied({"1": b"y"})
    assert copies.summary_of("a") == log.summary


def test_a_new_life_replaces_the_old_one() -> None:
    log = Log("a", 1)
    log.put("1", b"x")
    log.put("2", b"x")
    copies = follower(log)
    again = Log("a", 2)
    again.put("1", b"x")
    again.put("3", b"x")
    assert copies.apply(again.since(Summary(2, 0, 0))) == Applied({"2": None, "3": b"x"})
    assert copies.apply(whole(log)) == Old()


def test_who_is_no_member_counts_nothing() -> None:
    log = Log("a", 1)
    log.put("1", b"x")
    copies = Copies()
    assert copies.apply(whole(log)) == Old()
    assert not copies.heard("a", log.summary)
    copies.admit("a")
    assert copies.heard("a", log.summary)
    copies.apply(whole(log))
    copies.forget("a")
    assert copies.apply(whole(log)) == Old()
    assert copies.entries_of("a") == {}


def test_when_the_owner_has_to_be_asked() -> None:
    log = Log("a", 5)
    log.put("1", b"x")
    copies = follower(log)
    at = log.summary
    assert not copies.heard("a", at)
    assert not copies.heard("a", evolve(at, seq=0, digest=0)), "an old word"
    assert copies.heard("a", evolve(at, seq=2))
    assert copies.heard("a", evolve(at, digest=1))
    assert copies.heard("a", evolve(at, incarnation=6, seq=0))
    assert copies.heard("a", evolve(at, incarnation=4)), "it may not know that it had another life"


def test_a_copy_that_isn_t_right_is_made_anew() -> None:
    """Two lives at one reading of the clock: the digest tells."""
    former, log = Log("a", 1), Log("a", 1)
    former.put("1", b"x")
    copies = follower(former)
    log.put("2", b"x")
    log.put("3", b"x")
    assert copies.heard("a", log.summary)
    assert copies.apply(log.since(copies.summary_of("a"))) == Gap()
    assert copies.entries_of("a") == {"1": b"x"}, "nothing of what is wrong is taken"
    assert copies.summary_of("a") is None
    assert copies.heard("a", former.summary)
    assert copies.apply(log.since(None)) == Applied({"1": None, "2": b"x", "3": b"x"})
    assert copies.summary_of("a") == log.summary


def test_one_that_differs_at_the_same_number() -> None:
    former, log = Log("a", 1), Log("a", 1)
    former.put("1", b"x")
    log.put("2", b"x")
    copies = follower(former)
    assert copies.heard("a", log.summary)
    assert copies.apply(log.since(copies.summary_of("a"))) == Applied({"1": None, "2": b"x"})


def test_a_copy_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too much changes nothing, however it comes; what goes makes room."""
    monkeypatch.setattr(sync, "MOST_SIZE", 2 * (sync.ENTRY + 2))
    log = Log("b", 1)
    copies = follower(log)
    log.put("1", b"x")
    log.put("2", b"y")
    assert isinstance(copies.apply(whole(log)), Applied)
    before = copies.summary_of("b")
    log.put("3", b"z")
    assert isinstance(copies.apply(log.since(before)), Excess)
    assert isinstance(copies.apply(whole(log)), Excess)
    assert copies.summary_of("b") == before
    log.remove("1")
    assert isinstance(copies.apply(whole(log)), Applied)
    assert copies.entries_of("b") == log.entries


def test_the_last_life() -> None:
    log = Log("b", 1)
    log.outlive(Summary(sync.MOST, 1, 0))
    assert log.summary.incarnation == sync.MOST
    records.encode_delta(whole(log))
