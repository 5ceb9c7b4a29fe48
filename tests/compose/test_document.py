"""YAML as Compose has it: 1.2, variables in values, extensions, and a line for every error."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appswitch.compose import document
from appswitch.compose.document import Document
from appswitch.errors import AppSwitchError


def data(text: str, **variables: str) -> Any:
    return Document("c.yaml", text, variables).data


def error(text: str, **variables: str) -> str:
    with pytest.raises(AppSwitchError) as caught:
        Document("c.yaml", text, variables)
    assert caught.value.reason == "bad-compose"
    return caught.value.message


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("off", "off"),
        ("22:22", "22:22"),
        ("2001-01-01", "2001-01-01"),
        ("true", True),
        ("False", False),
        ("010", 10),
        ("0x1f", 31),
        ("0o17", 15),
        ("-3", -3),
        ("1.50", 1.5),
        ("1e3", 1000.0),
        ("~", None),
        ("null", None),
        ("'true'", "true"),
        ("[a, 1]", ["a", 1]),
        ("{a: 1, 80: x}", {"a": 1, "80": "x"}),
        ("", None),
    ],
)
def test_yaml_1_2(text: str, value: object) -> None:
    assert data(text) == value
    assert type(data(text)) is type(value)


def test_variables_and_labels_are_texts_as_written() -> None:
    made = data("services:\n  web:\n    environment: {A: 1.10, B: yes, C: true, D: , E: 0x1, F: '~', x-g: 1}")
    assert made["services"]["web"]["environment"] == {
        "A": "1.10", "B": "yes", "C": "true", "D": None, "E": "0x1", "F": "~", "x-g": "1"
    }  # fmt: skip


def test_a_variables_value_is_never_read_as_yaml() -> None:
    made = data("a: $X\nb: [$X]\nc: '${X}'\n$X: key", X="{b: c} # &")
    assert made == {"a": "{b: c} # &", "b": ["{b: c} # &"], "c": "{b: c} # &", "$X": "key"}


def test_extensions_are_left_out_and_not_looked_at() -> None:
    made = data("x-common: &c {a: 1, x-more: $UNSET}\nservices:\n  x-web: {x-a: 1, b: [{x-c: 1, d: 2}]}\n  web: *c")
    assert made == {"services": {"x-web": {"b": [{"d": 2}]}, "web": {"a": 1}}}
    assert data("x-appswitch: {ip: 1}") == {"x-appswitch": {"ip": 1}}


def test_merged_keys_give_way() -> None:
    text = "x-a: &a {p: 1, q: 1}\nx-b: &b {q: 2, r: 2}\nboth:\n  <<: [*a, *b]\n  r: 3\none:\n  p: 9\n  <<: *a"
    assert data(text) == {"both": {"p": 1, "q": 1, "r": 3}, "one": {"p": 9, "q": 1}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: [", "c.yaml:2: "),
        ("a: 1\n\tb: 2", "c.yaml:2: "),
        ("a:\n  b: 1\n  c: 2\n  b: 3\n", "c.yaml:4: a.b: it is there twice, first in line 2"),
        ("a:\n  - b: 1\n  - b: !secret x", "c.yaml:3: a.1.b: it has a tag that isn't known: !secret"),
        ("a: *nothing", "c.yaml:1: found undefined alias 'nothing'"),
        ("a: &a\n  b: *a", "c.yaml:2: a.b: it contains itself"),
        ("a: &a\n  <<: *a", "c.yaml:2: a: it contains itself"),
        ("a:\n  <<: 1", "c.yaml:2: a: << takes a mapping"),
        ("? [a]\n: 1", "c.yaml:1: a key is a text"),
        ("a:\n  b: $", "c.yaml:2: a.b: no variable follows a $"),
        ("a:\n  b:\n    ${X:?needed}", "c.yaml:2: a.b: X must be set: needed"),
        ("a: !!int x", "c.yaml:1: a: not a number: x"),
        ("a: " + "9" * 5000, "c.yaml:1: a: not a number: 999"),
        ("a: 1\n--- \nb: 2", "c.yaml:2: "),
        ("a: \x00", "c.yaml: "),
        ("[" * 10_000, "c.yaml: it is nested too deeply"),
    ],
)
def test_errors(text: str, message: str) -> None:
    assert error(text).startswith(message)


def test_aliases_don_t_take_all_memory() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert f"more than {document.MOST_VALUES} values" in error("\n".join(lines))


def test_unset_variables_are_told_with_their_place() -> None:
    made = Document("c.yaml", "a:\n  b: $X\n  c: ${Y:-1}", {})
    assert made.warnings == ["c.yaml:2: a.b: X isn't set: nothing stands in its place"]


@given(st.text(st.sampled_from("ab:-[]{}&*!|>'\"#%@`$,? \n<~.0x")) | st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    said = ["c.yaml:"]
    try:
        Document("c.yaml", text, {})
    except AppSwitchError as refusal:
        said.append(refusal.message)
    assert all(each.startswith("c.yaml:") for each in said)
