"""What a process keeps of root's power; each in a process of its own, for it can't be got back."""

from __future__ import annotations

import subprocess
import sys

import pytest

from appswitch.host import privileges

TELL = "from appswitch.host import privileges; {}; print(*privileges.held().values())"
KEPT = sum(1 << number for number in privileges.KEPT.values())


def sets(*command: str, code: str) -> dict[str, int]:
    done = subprocess.run(
        [*command, sys.executable, "-c", TELL.format(code)], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return dict(zip(privileges.held(), map(int, done.stdout.split()), strict=True))


@pytest.mark.root
def test_root_keeps_what_it_needs() -> None:
    """Of what there is: a container's root has less than all."""
    had = sets(code="pass")
    assert sets(code="privileges.drop()") == {name: mask & KEPT for name, mask in had.items()} != had


@pytest.mark.root
@pytest.mark.parametrize("refused", ["os.setuid(1)", "os.setgroups([])", "os.chroot('/')"])
def test_the_rest_is_refused(refused: str) -> None:
    attempt = f"""
import os
from appswitch.host import privileges
privileges.drop()
try:
    {refused}
except PermissionError:
    print('refused')
"""
    done = subprocess.run([sys.executable, "-c", attempt], capture_output=True, text=True, check=True)
    assert done.stdout == "refused\n"


@pytest.mark.root
def test_what_it_starts_has_no_more() -> None:
    again = f"import os; os.execv({sys.executable!r}, ['python3', '-c', {TELL.format('pass')!r}])"
    assert sets(code=f"privileges.drop(); {again}") == sets(code="privileges.drop()")


@pytest.mark.root
@pytest.mark.program("setpriv")
def test_who_has_little_loses_only_that() -> None:
    had = sets("setpriv", "--bounding-set", "-all,+kill,+setuid", code="privileges.drop()")
    assert had["permitted"] == had["effective"] == 1 << privileges.KEPT["kill"]
    assert had["bounding"] & ~KEPT == 1 << 7  # setuid: to take it from there needs CAP_SETPCAP


@pytest.mark.root
@pytest.mark.program("setpriv")
def test_an_ordinary_user_has_nothing_to_lose() -> None:
    had = sets("setpriv", "--reuid=65534", "--clear-groups", code="pass")
    assert had["permitted"] == 0
    assert sets("setpriv", "--reuid=65534", "--clear-groups", code="privileges.drop()") == had
