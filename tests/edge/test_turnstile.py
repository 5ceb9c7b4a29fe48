"""How many clients a gateway lets in, and when: C's turnstile, and the few lines of Python that it is to be like."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appswitch.core import limits
from appswitch.core.limits import Limits
from appswitch.edge.turnstile import Turnstile
from appswitch.model import Address
from tests.edge import turnstile as oracle

Gate = Turnstile | oracle.Turnstile
Made = Callable[[Limits], Gate]

ONE, OTHER = IPv4Address("203.0.113.1"), IPv4Address("203.0.113.2")
MANY = [IPv4Address(0xCB007100 + n) for n in range(300)] + [
    IPv6Address((0x20010DB8 << 96) + (n << 61)) for n in range(20)
]


@pytest.fixture(params=[Turnstile, oracle.Turnstile], ids=["C", "oracle"])
def made(request: pytest.FixtureRequest) -> Made:
    kind: Made = request.param
    return kind


# --- in all


def test_at_the_limit_new_ones_wait_until_some_have_ended(made: Made) -> None:
    gate = made(Limits(connections=3))
    for _ in range(3):
        assert not gate.is_full
        gate.let_in(ONE)
    assert gate.is_full
    gate.count(0.0)
    gate.counted([ONE, OTHER])
    assert not gate.is_full
    gate.let_in(ONE)
    assert gate.is_full


def test_those_that_come_while_the_kernel_is_asked_count(made: Made) -> None:
    gate = made(Limits(connections=3))
    gate.let_in(ONE)
    gate.count(0.0)
    gate.let_in(OTHER)
    gate.let_in(OTHER)
    assert gate.is_full
    gate.counted([ONE])
    assert gate.is_full


def test_the_kernel_is_asked_once_a_second_at_most(made: Made) -> None:
    gate = made(Limits(connections=3))
    assert gate.may_count_in(50.0) == 0
    gate.count(50.0)
    assert gate.may_count_in(50.25) == limits.COUNT_EVERY - 0.25
    assert gate.may_count_in(51.5) == 0


# --- of a source


def come(gate: Gate, ip: Address) -> bool:
    gate.let_in(ip)
    if not gate.has_too_many(ip):
        return True
    gate.turn_away(ip)
    return False


def test_one_source_doesnt_take_what_is_anothers(made: Made) -> None:
    gate = made(Limits(per_source=2))
    assert [come(gate, ONE) for _ in range(4)] == [True, True, False, False]
    assert come(gate, OTHER)
    gate.count(0.0)
    assert not come(gate, ONE)  # nothing is known yet
    gate.counted([ONE, OTHER, OTHER])
    assert come(gate, ONE)
    assert not come(gate, OTHER)


def test_those_that_were_turned_away_take_nobodys_place(made: Made) -> None:
    gate = made(Limits(connections=3, per_source=1))
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


def test_an_ipv6_network_is_one_source(made: Made) -> None:
    gate = made(Limits(per_source=1))
    assert come(gate, IPv6Address("2001:db8::1"))
    assert not come(gate, IPv6Address("2001:db8::ffff:2"))
    assert come(gate, IPv6Address("2001:db8:0:1::1"))


# --- in a second


def test_after_a_quiet_time_a_seconds_worth_comes_at_once_and_then_one_at_a_time(made: Made) -> None:
    gate = made(Limits(rate=4))
    assert [gate.pause(100.0) for _ in range(6)] == [0, 0, 0, 0, 0.25, 0.25]
    assert gate.pause(100.25) == 0
    assert gate.pause(100.25) == 0.25


def test_less_than_one_a_second(made: Made) -> None:
    gate = made(Limits(rate=0.5))
    assert [gate.pause(0.0), gate.pause(0.0), gate.pause(2.0), gate.pause(3.0)] == [0, 2.0, 0, 1.0]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(0.1, 1000), st.lists(st.floats(0, 10), max_size=200))
def test_never_more_than_the_rate_and_who_waits_as_told_gets_in(made: Made, rate: float, steps: list[float]) -> None:
    gate, now, times = made(Limits(rate=rate)), 0.0, []
    for step in steps:
        now += step
        if pause := gate.pause(now):
            now += pause
            assert gate.pause(now) == 0
        times.append(now)
    for index, start in enumerate(times):
        for count, end in enumerate(times[index:], 1):
            assert count <= max(rate, 1) + (end - start) * rate + 1e-3


def test_without_limits_nothing_is_counted(made: Made) -> None:
    gate = made(Limits())
    for _ in range(1000):
        assert gate.pause(0.0) == 0
        assert not gate.is_full
        assert come(gate, ONE)


# --- both alike

ips = st.sampled_from([*MANY[:5], *MANY[-5:]])
steps = st.one_of(
    st.tuples(st.just("come"), ips),
    st.tuples(st.just("pause"), st.floats(0, 3)),
    st.tuples(st.just("nobody"), st.floats(0, 3)),
    st.tuples(st.just("count"), st.floats(0, 3)),
    st.tuples(st.just("counted"), st.lists(ips, max_size=12)),
    st.tuples(st.just("crowd"), st.integers(0, len(MANY))),
)


@given(
    st.builds(
        Limits,
        connections=st.none() | st.integers(1, 8),
        per_source=st.none() | st.integers(1, 3),
        rate=st.none() | st.floats(0.1, 50),
    ),
    st.lists(steps, max_size=100),
)
def test_c_says_what_the_oracle_says(wanted: Limits, what_happens: list[tuple[str, Any]]) -> None:
    both: tuple[Gate, Gate] = (Turnstile(wanted), oracle.Turnstile(wanted))
    now = 0.0
    for what, value in what_happens:
        if what in ("pause", "nobody", "count"):
            now += value
        one, other = [_do(each, what, value, now) for each in both]
        assert one == other


def _do(gate: Gate, what: str, value: Any, now: float) -> list[Any]:
    """What it says to that, and where everybody is after it."""
    said: list[Any] = []
    match what:
        case "come":
            said.append(come(gate, value))
        case "pause":
            said.append(gate.pause(now))
        case "nobody":
            if not gate.pause(now):
                gate.give_back()
        case "count":
            said.append(gate.may_count_in(now))
            gate.count(now)
        case "counted":
            gate.counted(value)
        case "crowd":
            said += [come(gate, each) for each in MANY[:value]]
    return [*said, gate.is_full, [gate.has_too_many(each) for each in MANY]]
