"""Files of variables, as the Compose specification's section "Env_file format" has them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appswitch.compose.dotenv import DotenvError, parse

HOST = {"HOST": "host"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("A=b", "b"),
        ("A=", ""),
        ("A = b", "b"),
        ("A: b", "b"),
        ("export A=b", "b"),
        ("  A=b  ", "b"),
        ("A=b c  # comment", "b c"),
        ("A=b#c", "b#c"),
        ("A= # comment", ""),
        ("A='b # $HOST \\n'", "b # $HOST \\n"),
        ("A='b' # comment", "b"),
        ('A="b # c" # comment', "b # c"),
        ('A="x\\ty\\nz"', "x\ty\nz"),
        ('A="say \\"it\\""', 'say "it"'),
        ('A="x\ny"', "x\ny"),
        ("A='x\ny'\nB=1", "x\ny"),
        ("A=$HOST/${HOST}", "host/host"),
        ('A="<$HOST>"', "<host>"),
        ('A="\\$HOST"', "$HOST"),
        ("A=${NONE:-x}", "x"),
        ("A={}", "{}"),
        ("A=b\r\nB=c\r\n", "b"),
        ("\n# comment\n\nA=b", "b"),
        ("A=a\nA=b", "b"),
    ],
)
def test_values(text: str, value: str) -> None:
    assert parse(text, HOST)["A"] == value


def test_a_name_alone_has_the_environments_value_or_none() -> None:
    assert parse("HOST\nNOBODY\nA=1", HOST) == {"HOST": "host", "A": "1"}


def test_values_name_those_before_them_and_the_environment_wins() -> None:
    assert parse("A=1\nB=$A$HOST\nHOST=mine", HOST) == {"A": "1", "B": "1host", "HOST": "mine"}


def test_raw_values_stand_as_they_are() -> None:
    assert parse("A='$x' # y\nB=\"\n", {}, raw=True) == {"A": "'$x' # y", "B": '"'}


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("A=1\n=2", 2, "not NAME=VALUE"),
        ("1A=2", 1, "not NAME=VALUE"),
        ("A=1\n\nB='x\ny", 3, "a quote isn't closed"),
        ("A='x'y", 1, "can't be read: 'y'"),
        ("A B", 1, "can't be read: 'B'"),
        ("A=$", 1, "no variable follows"),
        ("\nA=${B:?b is needed}", 2, "b is needed"),
    ],
)
def test_errors_say_the_line(text: str, line: int, reason: str) -> None:
    with pytest.raises(DotenvError, match=reason) as caught:
        parse(text, {})
    assert caught.value.line == line


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    for raw in (False, True):
        line, found = 1, dict[str, str]()
        try:
            found = parse(text, {}, raw)
        except DotenvError as error:
            line = error.line
        assert 1 <= line <= text.count("\n") + 1
        assert all(isinstance(each, str) for each in found.values())


@given(st.dictionaries(st.sampled_from("ABC"), st.text(st.characters(exclude_characters="'\r", codec="utf-8"))))
def test_single_quotes_keep_everything(variables: dict[str, str]) -> None:
    assert parse("".join(f"{name}='{value}'\n" for name, value in variables.items()), {}) == variables
