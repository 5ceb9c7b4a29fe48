"""`${VARIABLE}`, as the Compose specification's section "Interpolation" has it."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appswitch.compose.interpolation import InterpolationError, interpolate

SET = {"A": "a", "EMPTY": "", "LONG_name1": "long"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("$A", "a"),
        ("${A}", "a"),
        ("x${A}y", "xay"),
        ("$A$A/$LONG_name1-", "aa/long-"),
        ("$$A $${A}", "$A ${A}"),
        ("$UNSET.", "."),
        ("${A:-b}", "a"),
        ("${EMPTY:-b}", "b"),
        ("${EMPTY-b}", ""),
        ("${UNSET:-b}", "b"),
        ("${UNSET-b}", "b"),
        ("${UNSET:-}", ""),
        ("${A:+b}", "b"),
        ("${EMPTY:+b}", ""),
        ("${EMPTY+b}", "b"),
        ("${UNSET+b}", ""),
        ("${A:?no}", "a"),
        ("${EMPTY?no}", ""),
        ("${UNSET:-${A}}", "a"),
        ("${UNSET:-${UNSET-$A:-b}}c", "a:-bc"),
        ("${UNSET:-a b: {}", "a b: {"),
        ("} {}", "} {}"),
        ('{"json": {"a": "$A"}}', '{"json": {"a": "a"}}'),
    ],
)
def test_values(text: str, value: str) -> None:
    assert interpolate(text, SET) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("$", "no variable"),
        ("a $ b", "$$ is a dollar"),
        ("$1", "no variable"),
        ("${", "no variable"),
        ("${}", "no variable"),
        ("${A", "there is no }"),
        ("${A:-b", "there is no }"),
        ("${A b}", "there is no }"),
        ("${A:b}", "there is no }"),
        ("${UNSET:?say it}", "UNSET must be set: say it"),
        ("${EMPTY:?}", "EMPTY must be set"),
        ("${UNSET?$A}", "UNSET must be set: a"),
    ],
)
def test_errors(text: str, reason: str) -> None:
    with pytest.raises(InterpolationError, match=re.escape(reason)):
        interpolate(text, SET)


def test_who_is_unset_is_told() -> None:
    told: list[str] = []
    interpolate("$A $B ${C} ${D:-d} ${E:-$F} ${A:-$G} $$H", SET, told.append)
    assert told == ["B", "C"]


@given(st.text(), st.dictionaries(st.sampled_from("ABC"), st.text()))
def test_any_text_is_read_or_refused(text: str, variables: Mapping[str, str]) -> None:
    try:
        value = interpolate(text, variables)
    except InterpolationError:
        return
    if "$" not in text:
        assert value == text


@given(st.text())
def test_a_dollar_twice_is_a_dollar(text: str) -> None:
    assert interpolate(text.replace("$", "$$"), {}) == text


@given(st.text())
def test_a_value_isn_t_read_again(value: str) -> None:
    assert interpolate("<${A}>", {"A": value}) == f"<{value}>"
