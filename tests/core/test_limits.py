"""How many clients a gateway lets in, and when."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appswitch.core.limits import COUNT_EVERY, Limits, Turnstile, parse_limits
from appswitch.errors import AppSwitchError
from appswitch.model import Address

ONE, OTHER = IPv4Address("203.0.113.1"), IPv4Address("203.0.113.2")


# --- what is asked for


def test_all_of_them() -> None:
    texts = ["connections=1000", "per-source=20", "rate=0.5/s", "first-byte=5", "idle=300"]
    assert parse_limits(texts) == Limits(1000, 20, 0.5, 5.0, 300.0)
    assert parse_limits([]) == Limits()


NO_LIMITS = """
    connections connections= connections=0 connections=-1 connections=1.5 connections=1/s
    rate=5 rate=0/s rate=5/m idle=0.0 idle=5s idle=1e9 size=3 per_source=3 idle=٣
"""


@pytest.mark.parametrize("text", ["", *NO_LIMITS.split()])
def test_what_is_no_limit(text: str) -> None:
    with pytest.raises(AppSwitchError, match="is no limit"):
        parse_limits([text])


def test_twice() -> None:
    with pytest.raises(AppSwitchError, match="rate is given twice"):
        parse_limits(["rate=5/s", "rate=6/s"])


# --- in all


def test_at_the_limit_new_ones_wait_until_some_have_ended() -> None:
    gate = Turnstile(Limits(connections=3))
    for _ in range(3):
        assert not gate.is_full
        gate.let_in(ONE)
    assert gate.is_full
    gate.count(0.0)
    gate.counted([ONE, OTHER])
    assert not gate.is_full
    gate.let_in(ONE)
    assert gate.is_full


def test_those_that_come_while_the_kernel_is_asked_count() -> None:
    gate = Turnstile(Limits(connections=3))
    gate.let_in(ONE)
    gate.count(0.0)
    gate.let_in(OTHER)
    gate.let_in(OTHER)
    assert gate.is_full
    gate.counted([ONE])
    assert gate.is_full


def test_the_kernel_is_asked_once_a_second_at_most() -> None:
    gate = Turnstile(Limits(connections=3))
    assert gate.may_count_in(50.0) == 0
    gate.count(50.0)
    assert gate.may_count_in(50.25) == COUNT_EVERY - 0.25
    assert gate.may_count_in(51.5) == 0


# --- of a source


def come(gate: Turnstile, ip: Address) -> bool:
    gate.let_in(ip)
    if not gate.has_too_many(ip):
        return True
    gate.turn_away(ip)
    return False


def test_one_source_doesnt_take_what_is_anothers() -> None:
    gate = Turnstile(Limits(per_source=2))
    assert [come(gate, ONE) for _ in range(4)] == [True, True, False, False]
    assert come(gate, OTHER)
    gate.count(0.0)
    assert not come(gate, ONE)  # nothing is known yet
    gate.counted([ONE, OTHER, OTHER])
    assert come(gate, ONE)
    assert not come(gate, OTHER)


def test_those_that_were_turned_away_take_nobodys_place() -> None:
    gate = Turnstile(Limits(connections=3, per_source=1))
    for _ in range(5):
        come(gate, ONE)
    gate.let_in(OTHER)
    gate.count(0.0)
    gate.counted([ONE, OTHER])  # it has been counted itself
    assert gate.has_too_many(OTHER) is False
    gate.let_in(OTHER)
    gate.count(1.0)
    gate.counted([ONE, OTHER, OTHER])
    assert gate.has_too_many(OTHER)
    gate.turn_away(OTHER)
    assert not gate.is_full
    assert not gate.has_too_many(OTHER)


def test_an_ipv6_network_is_one_source() -> None:
    gate = Turnstile(Limits(per_source=1))
    assert come(gate, IPv6Address("2001:db8::1"))
    assert not come(gate, IPv6Address("2001:db8::ffff:2"))
    assert come(gate, IPv6Address("2001:db8:0:1::1"))


# --- in a second


def test_after_a_quiet_time_a_seconds_worth_comes_at_once_and_then_one_at_a_time() -> None:
    gate = Turnstile(Limits(rate=4))
    assert [gate.pause(100.0) for _ in range(6)] == [0, 0, 0, 0, 0.25, 0.25]
    assert gate.pause(100.25) == 0
    assert gate.pause(100.25) == 0.25


def test_less_than_one_a_second() -> None:
    gate = Turnstile(Limits(rate=0.5))
    assert [gate.pause(0.0), gate.pause(0.0), gate.pause(2.0), gate.pause(3.0)] == [0, 2.0, 0, 1.0]


@given(st.floats(0.1, 1000), st.lists(st.floats(0, 10), max_size=200))
def test_never_more_than_the_rate_and_who_waits_as_told_gets_in(rate: float, steps: list[float]) -> None:
    gate, now, times = Turnstile(Limits(rate=rate)), 0.0, []
    for step in steps:
        now += step
        if pause := gate.pause(now):
            now += pause
            assert gate.pause(now) == 0
        times.append(now)
    for index, start in enumerate(times):
        for count, end in enumerate(times[index:], 1):
            assert count <= max(rate, 1) + (end - start) * rate + 1e-3


def test_without_limits_nothing_is_counted() -> None:
    gate = Turnstile(Limits())
    for _ in range(1000):
        assert gate.pause(0.0) == 0
        assert not gate.is_full
        assert come(gate, ONE)
    assert gate == Turnstile(Limits())
