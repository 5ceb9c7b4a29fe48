"""What `serve` is told of a cluster (what comes of it: tests/e2e/test_cluster.py)."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest
import structlog.testing

from appswitch.cluster import read_settings
from appswitch.errors import AppSwitchError


@pytest.mark.parametrize("bind", ["127.0.0.1", "127.1.2.3:7000", "::1", "0.0.0.0"])
def test_an_address_that_the_others_cant_reach(bind: str) -> None:
    for join in ("10.0.0.1", "db.example:7946"):
        with pytest.raises(AppSwitchError, match="no address that others could reach") as raised:
            read_settings(bind, (join,), None, "serf")
        assert raised.value.reason == "bad-bind"
        assert "--bind" in raised.value.hint


@pytest.mark.parametrize("join", [(), ("127.0.0.2",), ("localhost:7000", "[::1]:7000")])
def test_nodes_of_one_host(join: tuple[str, ...]) -> None:
    settings = read_settings("127.0.0.1", join, None, "serf")
    assert settings is not None
    assert settings.bind == ("127.0.0.1", 7946)


def test_a_name_that_isnt_known_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Said once, and looked up until it is known, as with --bind."""
    naps: list[float] = []
    known = socket.getaddrinfo("127.0.0.1", 7946, type=socket.SOCK_DGRAM)

    def look_up(*_: Any, **__: Any) -> Any:
        if len(naps) < 3:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return known

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(time, "sleep", naps.append)
    with structlog.testing.capture_logs() as said:
        settings = read_settings(None, ("localhost",), None, "serf")
    assert settings is not None
    assert settings.bind == ("127.0.0.1", 7946)
    (line,) = [each for each in said if "peer" in each]
    assert line["peer"] == "localhost"
    assert "--bind" in line["hint"]
