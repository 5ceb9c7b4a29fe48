"""The journal's file: whatever happens to it, the trap handler goes on."""

from __future__ import annotations

import resource
import signal
import stat
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from attrs import evolve

from appswitch.edge import journal
from appswitch.edge.journal import Journal, open_journal
from appswitch.model import App, Listener, Protocol
from tests.harness import open_descriptors

ANY = IPv4Address(0)


def app(number: int) -> App:
    return App(number, IPv4Address(0x0A000000 + number), "n1", f"app-{number}")


def receiver(number: int, of: App) -> Listener:
    return Listener(number, of, 4, ANY, 53, listening=True, protocol=Protocol.UDP)


def test_a_successor_knows_what_there_is(tmp_path: Path) -> None:
    before = open_descriptors()
    first = open_journal(tmp_path, "n1")
    for number in (1, 2, 3):
        first.put_app(app(number), netns=100 + number)
        first.put_receiver(receiver(10 + number, app(number)))
    first.drop_app(app(1))
    first.drop_receiver(receiver(12, app(2)))
    first.set_draining(app(3), True)
    first.change_app(evolve(app(2), ip=ANY))
    first.change_app(app(9))
    # It is not closed: its trap handler was killed.
    second = open_journal(tmp_path, "n1")
    assert {number: each.netns for number, each in second.past.apps.items()} == {2: 102, 3: 103}
    assert (second.past.apps[2].draining, second.past.apps[3].draining) == (False, True)
    assert (second.past.apps[2].app.ip, second.past.apps[3].app.ip) == (ANY, app(3).ip)
    assert list(second.past.receivers) == [13]
    assert second.past.head.salt == first.past.head.salt
    second.drop_app(app(3))
    third = open_journal(tmp_path, "n1")
    assert (list(third.past.apps), third.past.head.last_app) == ([2], 3)
    for each in (first, second, third):
        each.close()
    assert open_descriptors() == before


def test_nobody_else_reads_it(tmp_path: Path) -> None:
    made = open_journal(tmp_path, "n1")
    made.put_app(app(1), token=b"secret")
    assert stat.S_IMODE((tmp_path / "journal").stat().st_mode) == 0o600
    made.close()


def test_after_a_boot_nobody_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = open_journal(tmp_path, "n1")
    first.put_app(app(5), netns=100)
    first.close()
    boot = tmp_path / "boot_id"
    boot.write_text("another one\n")
    monkeypatch.setattr(journal, "BOOT_ID", boot)
    second = open_journal(tmp_path, "n1")
    assert (second.past.apps, second.past.head.last_app) == ({}, 5)
    assert second.past.head.salt != first.past.head.salt
    second.close()


@pytest.mark.parametrize("text", [b"", b"nonsense\n", b'{"is":"head","version":999}\n'])
def test_one_that_can_t_be_read_is_kept_aside(tmp_path: Path, text: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (1, 2):
        (tmp_path / "journal").write_bytes(text)
        made = open_journal(tmp_path, "n1")
        assert made.past.apps == {}
        made.put_app(app(1), netns=100)
        made.close()
        assert (tmp_path / f"journal.aside-{number}").read_bytes() == text
        assert f"journal.aside-{number}" in capsys.readouterr().out
    assert list(_read(tmp_path)) == [1]


def test_it_doesn_t_grow_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "MOST", 1000)
    made = open_journal(tmp_path, "n1")
    made.put_app(app(1), netns=100)
    for number in range(2, 200):
        made.put_app(app(number), netns=100)
        made.drop_app(app(number))
    assert (tmp_path / "journal").stat().st_size < 2500
    made.put_app(app(200), netns=200)
    made.close()
    assert list(_read(tmp_path)) == [1, 200]


def test_a_disk_that_is_full(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = open_journal(tmp_path, "n1")
    made.put_app(app(1), netns=100)
    size = (tmp_path / "journal").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, hard))
        for number in (2, 3):
            made.put_app(app(number), netns=100 + number)  # cut, and not at all
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert "File too large" in capsys.readouterr().out
    assert list(_read(tmp_path)) == [1]
    made.put_app(app(4), netns=104)
    made.close()
    assert list(_read(tmp_path)) == [1, 2, 3, 4]


def test_a_directory_that_has_gone(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    made = open_journal(tmp_path / "state", "n1")
    made.put_app(app(1), netns=100)
    (tmp_path / "state" / "journal").unlink()
    (tmp_path / "state").rmdir()
    made.put_app(app(2), netns=100)
    made.close()


def test_without_a_directory_nothing_is_kept() -> None:
    made = Journal()
    made.put_app(app(1), netns=100)
    made.drop_app(app(1))
    made.close()


def _read(directory: Path) -> dict[int, object]:
    made = open_journal(directory, "n1")
    made.close()
    return dict(made.past.apps)
