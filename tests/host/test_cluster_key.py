"""The cluster's key file."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest

from appswitch.errors import AppSwitchError
from appswitch.host.cluster_key import SIZE, read_key

KEY = bytes(range(SIZE))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.touch(mode=0o600)
    return path


@pytest.mark.program("serf")
def test_a_key_as_serf_makes_it(file: Path) -> None:
    made = subprocess.run(["serf", "keygen"], check=True, capture_output=True, text=True).stdout
    file.write_text(made)
    key, warning = read_key(file)
    assert key.serf == made.strip()
    assert warning is None


def test_the_peer_key_tells_nothing_of_serfs_and_is_the_same_everywhere(file: Path) -> None:
    file.write_bytes(base64.b64encode(KEY))
    key, _ = read_key(file)
    assert key.peer.hex() == "4621c4f2e573bbef8c6168e0606e0ce73a84af0af36e2a0d357c3d750461574d"
    file.write_bytes(base64.b64encode(KEY[:-1] + b"\0") + b"\n")
    assert read_key(file)[0].peer != key.peer


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o622])
def test_a_file_for_others_is_warned_about(file: Path, mode: int) -> None:
    file.write_bytes(base64.b64encode(KEY))
    file.chmod(mode)
    _, warning = read_key(file)
    assert warning is not None
    assert "chmod 600" in warning
    assert str(file) in warning


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "has 0 bytes instead of 32"),
        (b"no key!", "holds no base64"),
        (b"\xff" * 44, "holds no base64"),
        (base64.b64encode(KEY[:16]), "has 16 bytes instead of 32"),
        (base64.b64encode(KEY) * 100, "holds no base64"),
    ],
)
def test_what_is_no_key(file: Path, content: bytes, cause: str) -> None:
    file.write_bytes(content)
    with pytest.raises(AppSwitchError, match=cause) as raised:
        read_key(file)
    assert raised.value.reason == "bad-key"
    assert "serf keygen" in raised.value.hint


def test_a_file_that_cant_be_read(tmp_path: Path) -> None:
    with pytest.raises(AppSwitchError, match="No such file") as raised:
        read_key(tmp_path / "none")
    assert raised.value.reason == "bad-key"
    with pytest.raises(AppSwitchError, match="Is a directory"):
        read_key(tmp_path)
