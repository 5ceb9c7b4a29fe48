"""Rules in their order, the default, and the `grp` rule (DESIGN section 2, "Tags")."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appswitch.core.policy import Action, Default, Policy, Rule, Selector, Verdict, explain
from appswitch.model import App, Tag

GROUPS = st.sets(st.sampled_from("1234"))
PLAIN = Policy()


def app(
    number: int,
    *groups: str,
    name: str | None = None,
    node: str = "n1",
    ip: str = "10.1.1.1",
    more: tuple[Tag, ...] = (),
) -> App:
    tags = (*more, *(("grp", group) for group in groups))
    return App(id=number, ip=IPv4Address(ip), node=node, name=name, tags=tags)


def may_reach(client: App, server: App, policy: Policy = PLAIN, port: int = 80, proto: str = "tcp") -> bool:
    return policy.decide(client, server, port, proto).allowed


# --- the grp rule


def test_figure_1_of_the_paper() -> None:
    web, middle, db = app(1, "1"), app(2, "1", "2"), app(3, "2")
    assert may_reach(web, middle)
    assert may_reach(middle, db)
    assert not may_reach(web, db)
    assert not may_reach(db, web)


def test_sharing_a_virtual_ip_gives_no_way_past() -> None:
    assert app(1, "1").ip == app(2, "2").ip
    assert not may_reach(app(1, "1"), app(2, "2"))


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


# --- selectors


@pytest.mark.parametrize(
    ("selector", "fits"),
    [
        (Selector(), True),
        (Selector(names=("web-1",)), True),
        (Selector(names=("web-*",)), True),
        (Selector(names=("db", "*-?")), True),
        (Selector(names=("web",)), False),
        (Selector(names=("WEB-1",)), False),  # names are lower case; the file's patterns are made so
        (Selector(nodes=("n*",)), True),
        (Selector(nodes=("n2",)), False),
        (Selector(tags=(("env", "prod"),)), True),
        (Selector(tags=(("env", "test"),)), False),
        (Selector(tags=(("env", "test"), ("env", "prod"))), True),  # one key: any of its values
        (Selector(tags=(("env", "prod"), ("tier", "front"))), True),  # two keys: both
        (Selector(tags=(("env", "prod"), ("tier", "back"))), False),
        (Selector(tags=(("ENV", "prod"),)), False),
        (Selector(names=("web-1",), tags=(("env", "test"),)), False),
        (Selector(names=("web-1",), tags=(("env", "prod"),), nodes=("n1",)), True),
    ],
)
def test_a_selector(selector: Selector, fits: bool) -> None:
    web = app(1, name="web-1", more=(("env", "prod"), ("tier", "front"), ("tier", "edge")))
    assert selector.fits(web) == fits


def test_no_pattern_fits_what_has_no_name() -> None:
    assert not Selector(names=("*",)).fits(app(1))
    assert Selector().fits(app(1))


@pytest.mark.parametrize(
    ("rule", "port", "proto", "fits"),
    [
        (Rule("r", Action.DENY), 1, "udp", True),
        (Rule("r", Action.DENY, ports=(range(80, 81),)), 80, "tcp", True),
        (Rule("r", Action.DENY, ports=(range(80, 81),)), 81, "tcp", False),
        (Rule("r", Action.DENY, ports=(range(1, 2), range(80, 91))), 90, "tcp", True),
        (Rule("r", Action.DENY, protos=("udp",)), 80, "tcp", False),
        (Rule("r", Action.DENY, protos=("tcp", "udp")), 80, "tcp", True),
    ],
)
def test_the_destination(rule: Rule, port: int, proto: str, fits: bool) -> None:
    assert rule.fits(app(1), app(2), port, proto) == fits
    assert may_reach(app(1), app(2), Policy((rule,)), port, proto) != fits


def test_a_rule_has_a_direction() -> None:
    web, db = app(1, name="web"), app(2, name="db")
    policy = Policy((Rule("r", Action.DENY, Selector(names=("web",)), Selector(names=("db",))),))
    assert not may_reach(web, db, policy)
    assert may_reach(db, web, policy)


# --- policies

NAMES, KEYS, VALUES = st.sampled_from(["a", "b", None]), st.sampled_from(["grp", "k"]), st.sampled_from("12")
TAGS = st.lists(st.tuples(KEYS, VALUES), max_size=3).map(tuple)
SELECTORS = st.builds(
    Selector,
    names=st.lists(st.sampled_from(["a", "b", "*"]), max_size=2).map(tuple),
    tags=TAGS,
    nodes=st.lists(st.sampled_from(["n1", "n*", "n2"]), max_size=2).map(tuple),
)
RULES = st.builds(
    Rule,
    name=st.uuids().map(str),
    action=st.sampled_from(Action),
    client=SELECTORS,
    server=SELECTORS,
    ports=st.lists(st.sampled_from([range(80, 81), range(1, 100)]), max_size=2).map(tuple),
    protos=st.lists(st.sampled_from(["tcp", "udp"]), max_size=1).map(tuple),
    cut=st.booleans(),
)
POLICIES = st.builds(Policy, st.lists(RULES, max_size=5).map(tuple), st.sampled_from(Default))
APPS = st.builds(
    App,
    id=st.integers(1, 3),
    ip=st.just(IPv4Address("10.1.1.1")),
    node=st.sampled_from(["n1", "n2"]),
    name=NAMES,
    tags=TAGS,
)
PORTS, PROTOS = st.sampled_from([80, 99, 443]), st.sampled_from(["tcp", "udp"])


@given(POLICIES, APPS, APPS, PORTS, PROTOS)
def test_an_app_always_reaches_itself(policy: Policy, client: App, server: App, port: int, proto: str) -> None:
    verdict = policy.decide(client, server, port, proto)
    assert (verdict.rule == "self") == (client.id == server.id)
    if client.id == server.id:
        assert verdict == Verdict(True, "self")


@given(POLICIES, APPS, APPS, PORTS, PROTOS)
def test_the_first_rule_that_fits_decides(policy: Policy, client: App, server: App, port: int, proto: str) -> None:
    verdict = policy.decide(client, server, port, proto)
    fitting = [rule for rule in policy.rules if rule.fits(client, server, port, proto)]
    if client.id == server.id:
        return
    if fitting:
        first = fitting[0]
        assert verdict.rule == first.name
        assert verdict.allowed == (first.action is not Action.DENY)
        assert verdict.audit == (first.action is Action.AUDIT)
        assert verdict.cut == (first.cut and first.action is Action.DENY)
    else:
        expected = {
            Default.GRP: Verdict(PLAIN.decide(client, server, port, proto).allowed, "grp"),
            Default.ALLOW: Verdict(True, "default"),
            Default.DENY: Verdict(False, "default"),
        }
        assert verdict == expected[policy.default]


@given(POLICIES, RULES, APPS, APPS, PORTS, PROTOS)
def test_a_rule_at_the_end_changes_no_verdict_of_those_before(
    policy: Policy, last: Rule, client: App, server: App, port: int, proto: str
) -> None:
    before = policy.decide(client, server, port, proto)
    after = Policy((*policy.rules, last), policy.default).decide(client, server, port, proto)
    assert after == before or after.rule == last.name


@given(POLICIES, APPS, APPS, PORTS, PROTOS)
def test_every_verdict_is_explained(policy: Policy, client: App, server: App, port: int, proto: str) -> None:
    verdict = policy.decide(client, server, port, proto)
    said = explain(verdict, client, server)
    if verdict.rule in {rule.name for rule in policy.rules}:
        assert verdict.rule in said
    if verdict.rule != "self":
        assert ("allows" in said, "denies" in said) == (verdict.allowed, not verdict.allowed)


def test_the_grp_rule_is_explained_by_the_values_of_both_sides() -> None:
    client, server = app(1, "2", "1"), app(2, "3")
    said = explain(PLAIN.decide(client, server, 80), client, server)
    assert said == "the grp rule denies it: the client has grp=1 grp=2, the server grp=3"
