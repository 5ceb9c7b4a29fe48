"""A project's directory: one supervisor at a time, and nothing left."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from appswitch.compose.home import Home
from appswitch.errors import AppSwitchError


def home(directory: Path) -> Home:
    return Home(directory / "trap.sock", "shop")


def test_it_is_taken_once_and_nothing_is_left(tmp_path: Path) -> None:
    with home(tmp_path).taken():
        (home(tmp_path).log).write_text("said")
        with pytest.raises(AppSwitchError, match="shop is up already") as caught, home(tmp_path).taken():
            pass
        assert caught.value.reason == "running"
        assert home(tmp_path).log.read_text() == "said"
        with Home(tmp_path / "trap.sock", "other").taken():
            pass
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_one_has_left_is_removed(tmp_path: Path) -> None:
    home(tmp_path).directory.mkdir(parents=True)
    home(tmp_path).log.write_text("old")
    with home(tmp_path).taken():
        assert not home(tmp_path).log.exists()
    home(tmp_path).directory.mkdir(parents=True)
    home(tmp_path).tidy()
    assert list(tmp_path.iterdir()) == []
    home(tmp_path).tidy()
    home(tmp_path).wait_until_left()


def test_one_that_leaves_is_waited_for(tmp_path: Path) -> None:
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        with home(tmp_path).taken():
            os.write(ready[1], b"x")
            os.read(go[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    os.write(go[1], b"x")
    home(tmp_path).wait_until_left()
    with home(tmp_path).taken():
        pass
    os.waitpid(child, 0)
    for each in (*ready, *go):
        os.close(each)


def test_nobody_is_there(tmp_path: Path) -> None:
    assert home(tmp_path).connect() is None


def test_a_place_that_is_too_deep(tmp_path: Path) -> None:
    with pytest.raises(AppSwitchError, match="too long"):
        home(tmp_path / ("deep" * 20))
