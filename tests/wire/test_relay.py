"""What is said to the relay."""

from __future__ import annotations

import pytest

from appswitch.wire.relay import MOST_HEAD, decode_tally, encode_join


@pytest.mark.parametrize(("idle", "milliseconds"), [(None, 0), (1.5, 1500), (1e-6, 1), (1e12, 2**32 - 1)])
def test_an_idle_time_of_next_to_nothing_isnt_for_ever(idle: float | None, milliseconds: int) -> None:
    assert encode_join(b"head", idle)[4:] == milliseconds.to_bytes(4, "little") + b"head"


def test_a_head_that_is_too_long() -> None:
    assert len(encode_join(bytes(MOST_HEAD), None)) == MOST_HEAD + 8
    with pytest.raises(ValueError, match="4096 bytes at most"):
        encode_join(bytes(MOST_HEAD + 1), None)


def test_an_answer_of_another_size() -> None:
    with pytest.raises(ValueError, match="no tally"):
        decode_tally(b"short")
