"""Rules in their order, the default, and the `grp` rule (DESIGN section 2, "Tags")."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address, ip_network
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from appswitch.core.policy import Action, Default, Policy, Rule, Selector, Verdict, explain, is_public
from appswitch.model import App, Outside, Tag

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


# --- what is outside

CIDRS = st.lists(st.sampled_from(["192.0.2.0/24", "8.8.0.0/16", "0.0.0.0/0", "::/0"]).map(ip_network), max_size=2)
OUTSIDE_SELECTORS = st.builds(
    Selector,
    names=st.lists(st.sampled_from(["*.example.com", "a", "*"]), max_size=2).map(tuple),
    cidrs=CIDRS.map(tuple),
)
ADDRESSES = st.sampled_from(
    ["8.8.8.8", "10.0.0.1", "127.0.0.1", "169.254.169.254", "192.0.2.1", "100.64.0.1", "2001:4860::1", "fd00::1", "::1",
     "64:ff9b::a00:1", "2002:a00:1::1"]
).map(ip_address)  # fmt: skip
HOSTS = st.builds(
    Outside, ADDRESSES, st.lists(st.sampled_from(["www.example.com", "example.org", "a"]), max_size=2).map(tuple)
)
EVERY_RULES = st.builds(
    Rule,
    name=st.uuids().map(str),
    action=st.sampled_from(Action),
    client=SELECTORS | OUTSIDE_SELECTORS,
    server=SELECTORS | OUTSIDE_SELECTORS,
    cut=st.booleans(),
)
EVERY_POLICIES = st.builds(
    Policy, st.lists(EVERY_RULES, max_size=4).map(tuple), st.sampled_from(Default), st.booleans()
)


def host(ip: str, *names: str) -> Outside:
    return Outside(ip_address(ip), names)


def only(**server: Any) -> Policy:
    """Nobody leaves, but for there."""
    return Policy((Rule("there", Action.ALLOW, server=Selector(**server)),), egress=False)


@pytest.mark.parametrize("egress", [True, False])
def test_where_no_rule_fits_the_default_for_leaving_decides(egress: bool) -> None:
    for default in Default:
        verdict = Policy((), default, egress).decide(app(1), host("8.8.8.8"), 443)
        assert verdict == Verdict(egress, "egress")
        assert "serve --egress" in explain(verdict, app(1), host("8.8.8.8"))


@pytest.mark.parametrize("default", list(Default))
def test_what_is_exposed_may_be_reached(default: Default) -> None:
    verdict = Policy((), default, egress=False).decide(host("192.0.2.1"), app(1, "1"), 80)
    assert verdict == Verdict(True, "exposed")
    assert "exposed" in explain(verdict, host("192.0.2.1"), app(1, "1"))


@pytest.mark.parametrize(
    ("selector", "ip", "names", "fits"),
    [
        (Selector(), "8.8.8.8", (), True),
        (Selector(cidrs=(ip_network("8.8.0.0/16"),)), "8.8.8.8", (), True),
        (Selector(cidrs=(ip_network("8.8.0.0/16"),)), "8.9.8.8", (), False),
        (Selector(cidrs=(ip_network("::/0"),)), "8.8.8.8", (), False),
        (Selector(cidrs=(ip_network("::/0"), ip_network("8.8.8.8"))), "8.8.8.8", (), True),
        (Selector(names=("*.example.com",)), "8.8.8.8", ("x.org", "www.example.com"), True),
        (Selector(names=("*.example.com",)), "8.8.8.8", ("example.com",), False),
        (Selector(names=("*.example.com",)), "8.8.8.8", ("www.example.com.evil.org",), False),
        (Selector(names=("*",)), "8.8.8.8", (), False),
        (Selector(names=("*.com",), cidrs=(ip_network("8.0.0.0/8"),)), "8.8.8.8", ("a.com",), True),
        (Selector(names=("*.com",), cidrs=(ip_network("9.0.0.0/8"),)), "8.8.8.8", ("a.com",), False),
        (Selector(nodes=("n1",)), "8.8.8.8", (), False),
        (Selector(tags=(("env", "prod"),)), "8.8.8.8", (), False),
    ],
)
def test_a_selector_of_hosts_outside(selector: Selector, ip: str, names: tuple[str, ...], fits: bool) -> None:
    assert selector.fits(host(ip, *names)) == fits


def test_networks_are_of_hosts_outside_alone() -> None:
    """An app's virtual IP says nothing of where it is."""
    assert not Selector(cidrs=(ip_network("10.0.0.0/8"),)).fits(app(1, ip="10.1.1.1"))


@pytest.mark.parametrize(
    "ip",
    ["10.0.0.1", "192.168.1.1", "127.0.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "fd00::1", "::1", "fe80::1",
     "fec0::1", "64:ff9b::a00:1", "64:ff9b::7f00:1", "2002:a00:1::1"],
)  # fmt: skip
def test_a_name_alone_opens_no_address_that_is_not_public(ip: str) -> None:
    """Whoever has evil.example.com may say that it stands for a machine of ours."""
    evil = host(ip, "evil.example.com")
    assert not only(names=("*.example.com",)).decide(app(1), evil, 443).allowed
    assert only(names=("*.example.com",)).decide(app(1), host("8.8.8.8", "evil.example.com"), 443).allowed
    assert only(names=("*.example.com",), cidrs=(ip_network(ip),)).decide(app(1), evil, 443).allowed
    denies = Policy((Rule("not-there", Action.DENY, server=Selector(names=("*.example.com",))),))
    assert not denies.decide(app(1), evil, 443).allowed


def test_only_one_app_leaves_for_one_name() -> None:
    rule = Rule(
        "web-pays", Action.ALLOW, Selector(names=("web",)), Selector(names=("pay.example.com",)), (range(443, 444),)
    )
    policy = Policy((rule,), egress=False)
    pay, other = host("8.8.8.8", "pay.example.com"), host("8.8.4.4", "www.example.com")
    assert policy.decide(app(1, name="web"), pay, 443) == Verdict(True, "web-pays")
    for client, server, port in (("web", other, 443), ("web", pay, 80), ("db", pay, 443)):
        assert policy.decide(app(1, name=client), server, port) == Verdict(False, "egress")


def test_clients_outside_by_their_network() -> None:
    rule = Rule("not-from-there", Action.DENY, Selector(cidrs=(ip_network("192.0.2.0/24"),)), Selector(names=("web",)))
    policy = Policy((rule,))
    assert policy.decide(host("192.0.2.9"), app(1, name="web"), 80) == Verdict(False, "not-from-there")
    assert policy.decide(host("192.0.3.9"), app(1, name="web"), 80).allowed
    assert policy.decide(host("192.0.2.9"), app(1, name="db"), 80).allowed
    assert policy.decide(app(2, ip="192.0.2.9"), app(1, name="web"), 80).rule == "grp"


@given(EVERY_POLICIES, APPS, HOSTS, PORTS, PROTOS, st.booleans())
def test_the_first_rule_that_fits_decides_outside_too(
    policy: Policy, one: App, other: Outside, port: int, proto: str, leaves: bool
) -> None:
    client, server = (one, other) if leaves else (other, one)
    verdict = policy.decide(client, server, port, proto)
    fitting = [rule for rule in policy.rules if rule.fits(client, server, port, proto)]
    if fitting:
        assert (verdict.rule, verdict.allowed) == (fitting[0].name, fitting[0].action is not Action.DENY)
    else:
        assert verdict == (Verdict(policy.egress, "egress") if leaves else Verdict(True, "exposed"))
    assert (verdict.rule in explain(verdict, client, server)) or not fitting


@given(EVERY_POLICIES, APPS, HOSTS, PORTS, PROTOS)
def test_no_name_opens_what_is_inside(policy: Policy, client: App, server: Outside, port: int, proto: str) -> None:
    """Whatever names an address that isn't public has, they let nobody through whom rules without names wouldn't."""
    assume(not is_public(server.ip))
    allowed = policy.decide(client, server, port, proto).allowed
    nameless = tuple(
        rule for rule in policy.rules if rule.action is Action.DENY or not rule.server.rests_on_name(server)
    )
    assert allowed == Policy(nameless, policy.default, policy.egress).decide(client, server, port, proto).allowed


@given(EVERY_POLICIES, APPS, APPS, PORTS, PROTOS)
def test_networks_change_nothing_between_apps(policy: Policy, client: App, server: App, port: int, proto: str) -> None:
    of_apps = tuple(rule for rule in policy.rules if not (rule.client.cidrs or rule.server.cidrs))
    assert policy.decide(client, server, port, proto) == Policy(of_apps, policy.default).decide(
        client, server, port, proto
    )
