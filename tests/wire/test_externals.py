"""The file of external servers, there and back."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appswitch.wire.externals import Kept, decode, encode

KEPT = st.builds(
    Kept,
    name=st.text(),
    backends=st.lists(st.text(), max_size=3).map(tuple),
    ip=st.none() | st.text(),
    tags=st.lists(st.text(), max_size=2).map(tuple),
    started=st.floats(allow_nan=False, allow_infinity=False),
)


@given(st.lists(KEPT, max_size=3))
def test_there_and_back(kept: list[Kept]) -> None:
    assert decode(encode(kept)) == kept


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        b'{"version": 2, "externals": []}',
        b'{"version": 1, "externals": [{}]}',
        b'{"version": 1, "externals": ' + b"[" * 10000,
    ],
)
def test_what_is_none(content: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        decode(content)


@given(st.binary(max_size=100))
def test_whatever_is_there(content: bytes) -> None:
    with suppress(ValueError):
        assert isinstance(decode(content), list)
