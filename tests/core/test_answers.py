"""Which names stand for an address, as long as the answers hold, in bounded memory."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from appswitch.core import answers
from appswitch.core.answers import GONE, LEAST, MOST, ROOM, Answers
from appswitch.model import Address

IP, OTHER = ip_address("192.0.2.1"), ip_address("2001:db8::1")


def test_for_the_ttl() -> None:
    known = Answers({1})
    known.learn(1, "a.example", [IP, OTHER], 60, now=100)
    assert known.names_of(IP, 159.9) == known.names_of(OTHER, 100) == ("a.example",)
    assert known.names_of(IP, 160) == ()
    assert known.names_of(ip_address("192.0.2.2"), 100) == ()


@pytest.mark.parametrize(("ttl", "counts"), [(0, LEAST), (-1, LEAST), (LEAST + 1, LEAST + 1), (1 << 31, MOST)])
def test_a_ttl_within_bounds(ttl: float, counts: float) -> None:
    known = Answers({1})
    known.learn(1, "a.example", [IP], ttl, now=0)
    assert known.names_of(IP, counts - 0.1) == ("a.example",)
    assert known.names_of(IP, counts) == ()


def test_an_answer_that_holds_longer_is_not_cut_short() -> None:
    known = Answers({1})
    known.learn(1, "a.example", [IP], 100, now=0)
    known.learn(1, "a.example", [IP], 20, now=0)
    assert known.names_of(IP, 99) == ("a.example",)


def test_several_names_each_once() -> None:
    known = Answers({1, 2})
    for app, name in ((1, "b.example"), (2, "a.example"), (2, "b.example")):
        known.learn(app, name, [IP], 60, now=0)
    assert known.names_of(IP, 1) == ("a.example", "b.example")


def test_those_that_an_app_has_asked_for_are_first() -> None:
    known = Answers({1, 2})
    for app, name in ((1, "b.example"), (2, "a.example"), (2, "c.example"), (1, "c.example")):
        known.learn(app, name, [IP], 60, now=0)
    assert known.names_of(IP, 1, 1) == ("b.example", "c.example", "a.example")
    assert known.names_of(IP, 1, 2) == ("a.example", "c.example", "b.example")


def test_one_app_crowds_out_its_own_alone() -> None:
    known = Answers({1, 2})
    known.learn(1, "good.example", [IP], 60, now=0)
    known.learn(2, "first.example", [IP], 60, now=0)
    for number in range(ROOM):
        known.learn(2, f"{number}.example", [IPv4Address(number)], 60, now=0)
    assert known.names_of(IP, 1) == ("good.example",)


def test_apps_that_have_gone() -> None:
    known, there = Answers(apps := {0}), IPv4Address(0)
    known.learn(0, "0.example", [there], 60, now=0)
    apps.clear()
    apps.add(1)
    known.learn(1, "1.example", [there], 60, now=0)
    assert known.names_of(there, 1) == ("0.example", "1.example"), "for the TTL, still"
    for number in range(2, GONE + 3):
        known.learn(number, f"{number}.example", [there], 60, now=0)
    assert "0.example" not in known.names_of(there, 1)
    assert "1.example" in known.names_of(there, 1)


NAMES, IPS = st.sampled_from("abcdef"), st.integers(0, 5).map(IPv4Address)


class Machine(RuleBasedStateMachine):
    """Against a list of all that was said, in a small world."""

    def __init__(self) -> None:
        super().__init__()
        self.room, self.gone = answers.ROOM, answers.GONE
        answers.ROOM, answers.GONE = 4, 1
        self.apps: set[int] = set()
        self.known = Answers(self.apps)
        self.said: list[tuple[Address, str, float]] = []
        self.now = 0.0

    def teardown(self) -> None:
        answers.ROOM, answers.GONE = self.room, self.gone

    @rule(app=st.integers(1, 4), name=NAMES, ips=st.lists(IPS, max_size=6), ttl=st.integers(0, 100))
    def learn(self, app: int, name: str, ips: list[Address], ttl: int) -> None:
        self.apps.add(app)
        self.known.learn(app, name, ips, ttl, self.now)
        self.said += [(ip, name, self.now + max(ttl, LEAST)) for ip in ips]

    @rule(app=st.integers(1, 4))
    def end(self, app: int) -> None:
        self.apps.discard(app)

    @rule(seconds=st.integers(1, 50))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @invariant()
    def it_says_what_was_said_and_holds(self) -> None:
        for number in range(6):
            ip = IPv4Address(number)
            holds = {name for address, name, until in self.said if address == ip and self.now < until}
            assert set(self.known.names_of(ip, self.now)) <= holds

    @invariant()
    def it_is_bounded_and_whole(self) -> None:
        given = {(ip, name, app) for app, pairs in self.known._given.items() for ip, name in pairs}
        assert given == {(ip, name, app) for ip, names in self.known._by_ip.items() for name, app in names}
        assert all(len(pairs) <= 4 for pairs in self.known._given.values())
        assert all(self.known._by_ip.values())


TestMachine = Machine.TestCase
