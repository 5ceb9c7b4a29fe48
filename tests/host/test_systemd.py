"""What systemd and a service say to each other."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from appswitch.host import systemd
from appswitch.host.systemd import Manager


@pytest.fixture(params=["path", "abstract"])
def heard(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """A manager's socket, and what NOTIFY_SOCKET calls it."""
    name = str(tmp_path / "notify") if request.param == "path" else "@appswitch/" + secrets.token_hex(8)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name.replace("@", "\0"))
        manager.settimeout(10)
        yield name, manager


def test_what_is_said(heard: tuple[str, socket.socket]) -> None:
    name, to = heard
    manager = Manager(name)
    manager.ready("all is well")
    assert to.recv(1000) == b"READY=1\nSTATUS=all is well"
    manager.ready()
    assert to.recv(1000) == b"READY=1"
    manager.reloading()
    said, when = to.recv(1000).split(b"\nMONOTONIC_USEC=")
    assert said == b"RELOADING=1"
    assert int(when) > 0
    manager.status("so so")
    assert to.recv(1000) == b"STATUS=so so"
    manager.alive()
    assert to.recv(1000) == b"WATCHDOG=1"
    manager.stopping()
    assert to.recv(1000) == b"STOPPING=1\nSTATUS=stopping"


def test_nobody_hears_and_nobody_minds(tmp_path: Path) -> None:
    assert not Manager().listens
    Manager().ready("x")
    Manager(str(tmp_path / "nothing")).ready("x")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(str(tmp_path / "deaf"))
        for _ in range(1000):  # its queue is full long before
            Manager(str(tmp_path / "deaf")).ready("x")


def test_the_watchdog_is_who_it_is_meant_for() -> None:
    ours = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "2500000"}
    assert systemd.take({**ours, "WATCHDOG_PID": str(os.getpid())})[0].watchdog == 2.5
    assert systemd.take(dict(ours))[0].watchdog == 2.5
    assert systemd.take({**ours, "WATCHDOG_PID": "1"})[0].watchdog is None
    assert systemd.take({**ours, "WATCHDOG_USEC": "x"})[0].watchdog is None
    assert systemd.take({})[0].watchdog is None


@pytest.mark.parametrize(("pid", "count"), [(None, "1"), ("1", "1"), ("self", "x"), ("self", None)])
def test_sockets_that_are_not_ours(pid: str | None, count: str | None) -> None:
    given = {"LISTEN_PID": str(os.getpid()) if pid == "self" else pid, "LISTEN_FDS": count}
    assert systemd.take({key: value for key, value in given.items() if value is not None})[1] == []


TAKER = """
import os
from appswitch.host import systemd
os.environ["LISTEN_PID"] = str(os.getpid())
manager, sockets = systemd.take(os.environ)
print(manager.listens, [(each.fileno(), os.get_inheritable(each.fileno())) for each in sockets],
      sorted(os.environ.keys() & {"NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"}))
"""


def test_sockets_are_taken_and_nobody_else_gets_them(tmp_path: Path) -> None:
    """Descriptor 4 is a file: it is left alone."""
    script = """exec 3<&0 4<"$0" 5<&0 && exec "$@" """
    environment = {**os.environ, "LISTEN_FDS": "3", "LISTEN_FDNAMES": "a:b:c", "NOTIFY_SOCKET": "/x"}
    with socket.socket(socket.AF_UNIX) as ours:
        done = subprocess.run(
            ["sh", "-c", script, __file__, sys.executable, "-c", TAKER],
            stdin=ours.fileno(), env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
    assert done.stdout == "True [(3, False), (5, False)] []\n"


def test_handing_on() -> None:
    """Variables for another process than the former stay as they are."""
    environment = {"LISTEN_PID": "77", "WATCHDOG_PID": "78", "LISTEN_PIDFDID": "5", "LISTEN_FDS": "2"}
    systemd.hand_on(environment, 77)
    assert environment == {"LISTEN_PID": str(os.getpid()), "WATCHDOG_PID": "78", "LISTEN_FDS": "2"}
    assert systemd.without({**environment, "HOME": "/"}) == {"HOME": "/"}
