"""What a node says of itself in Serf's tags."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appswitch.model import Node, Summary
from appswitch.wire import tags

NODE = Node("n1", gateway=True, address="10.0.0.1", port=7947)
TAGS = tags.encode(NODE, Summary(12, 3, 0xABC))


def test_there_and_back() -> None:
    assert tags.decode(TAGS) == tags.Told(7947, gateway=True, summary=Summary(12, 3, 0xABC))
    plain = tags.encode(Node("n1", port=1), Summary(0, 0, 0))
    assert tags.decode(plain) == tags.Told(1, gateway=False, summary=Summary(0, 0, 0))


def test_they_leave_room() -> None:
    """Serf takes 512 bytes, its own included."""
    longest = tags.encode(NODE, Summary(2**63, 2**63, 2**64 - 1))
    assert sum(len(key) + len(value) + 4 for key, value in longest.items()) < 200


@pytest.mark.parametrize("name", ["p", "i", "s", "d"])
def test_one_is_missing_or_means_nothing(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        tags.decode({key: value for key, value in TAGS.items() if key != name})
    with pytest.raises(ValueError, match="invalid literal"):
        tags.decode({**TAGS, name: "~"})


@pytest.mark.parametrize("wrong", [{"v": "1"}, {"p": "0"}, {"p": "65536"}, {"i": "-1"}, {"s": "-1"}])
def test_what_can_not_be(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"version|no such"):
        tags.decode({**TAGS, **wrong})


@given(st.dictionaries(st.sampled_from("vpisdgx"), st.text(max_size=8)))
def test_whatever_it_is(said: dict[str, str]) -> None:
    try:
        told = tags.decode(said)
    except ValueError:
        return
    assert 0 < told.port < 65536
