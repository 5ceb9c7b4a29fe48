"""Where the sockets are (DESIGN section 5)."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from appswitch.errors import AppSwitchError
from appswitch.host import paths


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("APPSWITCH_SOCKET", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)


def test_roots_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert paths.trap_socket() == Path("/run/appswitch/trap.sock")


def test_a_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert paths.trap_socket() == Path("/run/user/1000/appswitch/trap.sock")


def test_a_user_without_a_runtime_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "1000" in str(paths.trap_socket())
    monkeypatch.setattr(os, "geteuid", lambda: 1001)
    assert "1001" in str(paths.trap_socket())


def test_the_environment_and_the_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APPSWITCH_SOCKET", "/x/trap.sock")
    assert paths.trap_socket() == Path("/x/trap.sock")
    assert paths.trap_socket("/y/trap.sock") == Path("/y/trap.sock")
    monkeypatch.setenv("APPSWITCH_SOCKET", "")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/r")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert paths.trap_socket() == Path("/r/appswitch/trap.sock")


def test_it_is_absolute_whatever_the_program_does_to_its_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert paths.trap_socket("trap.sock") == tmp_path / "trap.sock"


def test_both_sockets_fit_or_it_says_so(tmp_path: Path) -> None:
    """unix(7): 108 bytes with the closing NUL; of bytes, not of characters."""
    longest = None
    for size in range(1, 200):
        text = "/tmp/" + "ä" * size
        try:
            path = paths.trap_socket(text)
        except AppSwitchError as error:
            assert text in str(error)  # noqa: PT017 - the first that is too long
            break
        longest = path
    assert longest is not None
    assert len(os.fsencode(paths.control_socket(longest))) in (106, 107)
    with socket.socket(socket.AF_UNIX) as probe:
        assert probe.connect_ex(os.fsencode(paths.control_socket(longest))) != 0  # no "path too long"


@pytest.mark.root
def test_the_directory_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.chown(tmp_path, 1001, -1)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(AppSwitchError, match="is user 1001's") as error:
        paths.make_directory(tmp_path / "trap.sock")
    assert error.value.reason == "not-yours"
    monkeypatch.setattr(os, "geteuid", lambda: 1001)
    paths.make_directory(tmp_path / "trap.sock")


def test_the_control_socket_is_beside_the_trap_socket() -> None:
    assert paths.control_socket(Path("/a/b.sock")).parent == Path("/a")
    assert paths.control_socket(Path("/a/b.sock")) != paths.control_socket(Path("/a/c.sock"))


def test_the_preload_library_is_there() -> None:
    assert paths.shim_path().is_file()
    assert paths.shim_path().name == "libappswitch.so"
    assert paths.shim_path().read_bytes()[:4] == b"\x7fELF"
