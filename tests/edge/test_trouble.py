"""Accepting that fails is said once."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator

import pytest
import structlog.testing
import trio
import trio.testing

from appswitch.edge.trouble import QUIET, OfTrio, Trouble


def test_once_until_all_has_been_well_for_a_while() -> None:
    now = 0.0
    trouble = Trouble("can't", lambda: now)
    with structlog.testing.capture_logs() as logs:
        for _ in range(300):  # without an end
            now += 0.1
            trouble.note(errno.EMFILE)
        now += QUIET + 0.1
        trouble.note(errno.EMFILE)
    assert [each["event"] for each in logs] == ["can't", "can't"]
    assert logs[0]["reason"] == os.strerror(errno.EMFILE)


class Short(trio.abc.Listener[trio.abc.Stream]):
    """There is no descriptor for whoever comes."""

    async def accept(self) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


@pytest.fixture
def of_trio() -> Iterator[None]:
    logger = logging.getLogger("trio.serve_listeners")
    handler = OfTrio()
    handler.install()
    yield
    logger.removeHandler(handler)
    logger.propagate = True


@pytest.mark.usefixtures("of_trio")
async def test_trio_s_own(autojump_clock: trio.testing.MockClock, capsys: pytest.CaptureFixture[str]) -> None:
    with structlog.testing.capture_logs() as logs, trio.move_on_after(5):
        await trio.serve_listeners(trio.aclose_forcefully, [Short()])
    assert [each["reason"] for each in logs] == [os.strerror(errno.EMFILE)]
    assert "Traceback" not in capsys.readouterr().err
