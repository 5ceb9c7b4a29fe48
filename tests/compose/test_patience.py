"""How long a health check may fail."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from appswitch.compose.patience import Patience
from appswitch.compose.project import Check

CHECK = Check(("x",), interval=10, retries=3, start_period=5, start_interval=1)


def test_it_is_asked_often_until_it_is_healthy() -> None:
    patience = Patience(CHECK)
    assert patience.pause == 1
    assert patience.judge(True, 0.5) is True
    assert patience.pause == 10


def test_at_first_it_has_its_start_period_and_its_retries() -> None:
    patience = Patience(CHECK)
    assert [patience.judge(False, age) for age in (1, 2, 3, 4, 20, 34.9, 35)] == [None] * 6 + [False]


def test_later_failures_in_a_row_count() -> None:
    patience = Patience(CHECK)
    told = [patience.judge(each, 100) for each in (True, False, False, True, False, False, False)]
    assert told == [True, None, None, True, None, None, False]


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 50)), min_size=1))
def test_a_success_is_always_healthy_and_no_failure_ever_is(checks: list[tuple[bool, float]]) -> None:
    patience = Patience(CHECK)
    age = 0.0
    for succeeded, step in checks:
        age += step
        verdict = patience.judge(succeeded, age)
        assert verdict is True if succeeded else verdict in (None, False)
