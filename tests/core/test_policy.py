"""The `grp` rule (DESIGN section 2, "Tags")."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appswitch.core.policy import may_reach
from appswitch.model import App, Tag

GROUPS = st.sets(st.sampled_from("1234"))


def app(number: int, *groups: str, ip: str = "10.1.1.1", more: tuple[Tag, ...] = ()) -> App:
    return App(id=number, ip=IPv4Address(ip), node="n1", tags=(*more, *(("grp", group) for group in groups)))


def test_figure_1_of_the_paper() -> None:
    web, middle, db = app(1, "1"), app(2, "1", "2"), app(3, "2")
    assert may_reach(web, middle)
    assert may_reach(middle, db)
    assert not may_reach(web, db)
    assert not may_reach(db, web)


def test_sharing_a_virtual_ip_gives_no_way_past() -> None:
    assert app(1, "1").ip == app(2, "2").ip
    assert not may_reach(app(1, "1"), app(2, "2"))


@pytest.mark.parametrize("groups", [(), ("1",), ("1", "2"), ("",)])
def test_an_app_always_reaches_itself(groups: tuple[str, ...]) -> None:
    assert may_reach(app(1, *groups), app(1, *groups))


@given(GROUPS, GROUPS)
def test_the_rule(client: set[str], server: set[str]) -> None:
    assert may_reach(app(1, *client), app(2, *server)) == (not server or bool(client & server))


def test_other_tags_say_nothing() -> None:
    assert may_reach(app(1, more=(("zone", "a"),)), app(2, more=(("zone", "b"),)))
    assert not may_reach(app(1, more=(("zone", "1"),)), app(2, "1"))
    assert not may_reach(app(1, more=(("GRP", "1"),)), app(2, "1"))


def test_an_empty_group_is_a_group() -> None:
    assert not may_reach(app(1), app(2, ""))
    assert may_reach(app(1, ""), app(2, ""))
