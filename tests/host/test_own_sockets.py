"""The trap socket and the control socket."""

from __future__ import annotations

import os
import socket
import stat
import struct
from pathlib import Path

import pytest

from appswitch.errors import AppSwitchError
from appswitch.host.own_sockets import open_own_sockets
from appswitch.host.paths import control_socket


def given(path: Path, kind: socket.SocketKind) -> socket.socket:
    """As a service manager makes it: bound and listening."""
    made = socket.socket(socket.AF_UNIX, kind)
    made.bind(str(path))
    made.listen(1)
    return made


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_made_and_gone(tmp_path: Path) -> None:
    path = tmp_path / "trap.sock"
    with open_own_sockets(path) as (trap, control):
        assert (trap.type, control.type) == (socket.SOCK_SEQPACKET, socket.SOCK_STREAM)
        assert (mode_of(path), mode_of(control_socket(path))) == (0o666, 0o600)
        with pytest.raises(AppSwitchError, match="already"), open_own_sockets(path):
            pass
        assert path.exists()
    assert not path.exists()
    assert not control_socket(path).exists()


def test_a_stale_one_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "trap.sock"
    given(path, socket.SOCK_SEQPACKET).close()
    with open_own_sockets(path):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as caller:
            caller.connect(str(path))


def test_what_is_no_socket_stays(tmp_path: Path) -> None:
    path = tmp_path / "trap.sock"
    path.write_text("mine")
    with pytest.raises(AppSwitchError, match="is no socket"), open_own_sockets(path):
        pass
    assert path.read_text() == "mine"


@pytest.mark.parametrize("both", [True, False])
def test_given_ones_stay(tmp_path: Path, both: bool) -> None:
    """Who comes is in the queue before, meanwhile and after."""
    path = tmp_path / "trap.sock"
    manager = given(path, socket.SOCK_SEQPACKET)
    passed = [socket.socket(fileno=os.dup(manager.fileno()))]
    if both:
        passed.append(given(control_socket(path), socket.SOCK_STREAM))
    with (
        manager,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as early,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as late,
    ):
        early.connect(str(path))
        with open_own_sockets(path, passed[::-1]) as (trap, control):
            trap.accept()[0].close()
            assert not trap.getblocking()
            assert control.getsockname() == str(control_socket(path))
        assert path.exists()
        assert control_socket(path).exists() == both
        late.connect(str(path))
    assert {each.fileno() for each in passed} == {-1}


def test_whom_a_caller_sees(tmp_path: Path) -> None:
    """The kernel notes who calls listen: that must be who serves, for the shim compares it."""
    path = tmp_path / "trap.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as manager:
        manager.bind(str(path))
        child = os.fork()
        if child == 0:
            manager.listen(1)
            os._exit(0)
        os.waitpid(child, 0)
        seen = []
        for _ in range(2):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as caller:
                caller.connect(str(path))
                seen.append(struct.unpack("iii", caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])
            with open_own_sockets(path, [socket.socket(fileno=os.dup(manager.fileno()))]):
                pass
    assert seen == [child, os.getpid()]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("trap.sock", socket.SOCK_STREAM),
        ("trap.sock.control", socket.SOCK_SEQPACKET),
        ("other.sock", socket.SOCK_STREAM),
        ("other.sock", socket.SOCK_SEQPACKET),
    ],
)
def test_given_ones_that_are_wrong(tmp_path: Path, name: str, kind: socket.SocketKind) -> None:
    with pytest.raises(AppSwitchError, match="the service manager gave") as raised:
        with open_own_sockets(tmp_path / "trap.sock", [given(tmp_path / name, kind)]):
            pass
    assert "Listen" in raised.value.message + str(raised.value.hint)


def test_a_given_one_that_is_no_unix_socket(tmp_path: Path) -> None:
    with pytest.raises(AppSwitchError, match="the service manager gave"):
        with open_own_sockets(tmp_path / "trap.sock", [socket.create_server(("127.0.0.1", 0))]):
            pass
