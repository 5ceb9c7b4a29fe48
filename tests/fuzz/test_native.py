"""A short time with each parser in C under the sanitizers; the same inputs each time. (`./dev fuzz` is for longer.)"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.native import NATIVES, Native

INPUTS = 20_000


@pytest.mark.program("gcc")
@pytest.mark.parametrize("native", NATIVES, ids=lambda each: each.file)
def test_any_bytes_leave_memory_and_descriptors_as_they_should_be(native: Native, tmp_path: Path) -> None:
    assert native.run(native.build(tmp_path), INPUTS, seed=7) == INPUTS
