"""Whose turn it is to let something out."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address
from itertools import pairwise

import pytest

from appswitch.core.exits import Exits


def test_gateways_take_turns() -> None:
    exits = Exits(here=False)
    first = [exits.order(["g1", "g2", "g3"], 0.0)[0] for _ in range(9)]
    assert Counter(first) == {"g1": 3, "g2": 3, "g3": 3}
    assert all(one != other for one, other in pairwise(first))


def test_the_others_follow_in_case_the_first_fails() -> None:
    exits = Exits(here=False)
    for _ in range(4):
        assert sorted(exits.order(["g1", "g2"], 0.0)) == ["g1", "g2"]


def test_one_that_comes_late_or_alone_gets_no_more_than_its_turn() -> None:
    exits = Exits(here=False)
    for _ in range(50):
        exits.order(["g1"], 0.0)
    first = [exits.order(["g1", "g2"], 0.0)[0] for _ in range(6)]
    assert Counter(first) == {"g1": 3, "g2": 3}


def test_one_that_failed_comes_last_until_its_pause_is_over() -> None:
    exits = Exits(here=False)
    exits.failed("g1", 10.0)
    assert [exits.order(["g1", "g2"], 10.5)[0] for _ in range(4)] == ["g2"] * 4
    assert exits.order(["g1"], 10.5) == ["g1"]
    assert "g1" in [exits.order(["g1", "g2"], 12.0)[0] for _ in range(2)]


def test_its_pause_doubles_until_it_has_worked() -> None:
    exits = Exits(here=False)
    exits.failed("g1", 10.0)
    exits.failed("g1", 11.0)
    assert [exits.order(["g1", "g2"], 12.5)[0] for _ in range(2)] == ["g2"] * 2
    exits.worked("g1")
    assert "g1" in [exits.order(["g1", "g2"], 12.5)[0] for _ in range(2)]


def test_a_failure_is_news_once() -> None:
    exits = Exits(here=False)
    assert exits.failed("g1", 0.0)
    assert not exits.failed("g1", 5.0)
    exits.worked("g1")
    assert exits.failed("g1", 9.0)


def test_nobody_is_let_to_the_ports_of_the_cluster() -> None:
    node = ip_address("10.0.0.1")
    exits = Exits(here=True, own_ports=lambda: {(node, 7946), (node, 7947)})
    for port in (7946, 7947):
        with pytest.raises(ConnectionRefusedError):
            exits.check(node, port)
    exits.check(node, 80)
    exits.check(ip_address("10.0.0.2"), 7946)


def test_without_gateways_there_is_no_way() -> None:
    assert Exits(here=False).order(Exits(here=False).others(), 0.0) == []
