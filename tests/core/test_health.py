"""When backends are tried, and what is known of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from appswitch.core.health import FIRST_PAUSE, INTERVAL, LONGEST_PAUSE, Healths
from appswitch.model import Health, HealthState

HEALTHS = st.lists(st.tuples(st.sampled_from("ab"), st.booleans(), st.floats(0, 10)), max_size=20)


def test_nothing_is_known_of_one_that_has_not_been_tried() -> None:
    healths: Healths[str] = Healths()
    assert healths.of("a") == Health(HealthState.UNKNOWN)
    assert not healths.is_down("a")
    assert healths.due("ab", 0.0) == ["a", "b"]


def test_one_that_answers_is_looked_at_at_intervals() -> None:
    healths: Healths[str] = Healths()
    assert healths.worked("a", 100.0), "that is news"
    assert not healths.worked("a", 101.0)
    assert healths.due("a", 101.0 + INTERVAL - 0.1) == []
    assert healths.due("a", 101.0 + INTERVAL) == ["a"]


def test_one_that_does_not_is_tried_less_and_less_often() -> None:
    healths: Healths[str] = Healths()
    now, pauses = 0.0, list[float]()
    for _ in range(8):
        assert healths.failed("a", "no", now) == (not pauses), "the first time, that is news"
        assert healths.due("a", now) == []
        pause = FIRST_PAUSE
        while not healths.due("a", now + pause):
            pause *= 2
            if pause > LONGEST_PAUSE:
                pause = LONGEST_PAUSE
        pauses.append(pause)
        now += pause
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]
    assert healths.of("a") == Health(HealthState.DOWN, now - 30, "no")
    assert healths.worked("a", now)
    healths.failed("a", "no", now)
    assert healths.due("a", now + FIRST_PAUSE) == ["a"], "anew"


@given(HEALTHS)
def test_what_was_seen_last_counts(said: list[tuple[str, bool, float]]) -> None:
    healths: Healths[str] = Healths()
    now, last = 0.0, dict[str, bool]()
    for who, works, later in said:
        now += later
        if works:
            healths.worked(who, now)
        else:
            healths.failed(who, "no", now)
        last[who] = works
    for who in "ab":
        assert healths.is_down(who) == (last.get(who) is False)
    assert sorted(healths.due("ab", now + LONGEST_PAUSE)) == ["a", "b"], "each has its turn"
    healths.due("b", now)
    assert "a" not in healths.known(), "what has gone is forgotten"
