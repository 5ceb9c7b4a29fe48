"""What a trap handler leaves to its successor: lines, whole, cut and wrong."""

from __future__ import annotations

import contextlib
from ipaddress import IPv4Address, IPv6Address

import pytest
from attrs import evolve, fields
from hypothesis import given
from hypothesis import strategies as st

from appswitch.model import App, Bypass, Expose, Listener, Protocol
from appswitch.wire import journal
from appswitch.wire.journal import GoneLine, Head, JournalError, Known

HEAD = journal.encode(Head(journal.VERSION, "a boot", 7, 3))
WEB = App(4, IPv4Address("10.1.1.1"), "n1", "web", (("grp", "1"),), 77, 1000, ("nginx", "-c", "x"), started=5.5,
          exposes=(Expose(80, 8080, "gw", True), Expose(443)),
          bypasses=(Bypass("10.0.0.0/8", ((80, 80), (90, 99))), Bypass("*.example")))  # fmt: skip
LONE = App(9, IPv6Address("fd00::1"), "n1", netns=False, exclusive=True, tcp=True, derived=True)
UDP = Listener(12, WEB, 6, IPv6Address("::"), 53, v6only=True, listening=True, protocol=Protocol.UDP)


def lines(*parts: bytes) -> bytes:
    return b"".join([HEAD, *parts])


def app(known: Known) -> bytes:
    return journal.encode(journal.app_line(known))


def receiver(listener: Listener) -> bytes:
    return journal.encode(journal.receiver_line(listener))


KNOWN = [Known(WEB, netns=99, draining=True), Known(LONE, token=b"0123456789abcdef")]


def test_what_was_put_is_read() -> None:
    past = journal.read(lines(*map(app, KNOWN), receiver(UDP)), "n1")
    assert (past.head.boot, past.head.salt, past.head.last_app) == ("a boot", 7, 9)
    assert past.apps == {4: KNOWN[0], 9: KNOWN[1]}
    assert past.receivers == {12: UDP}


def test_nothing_of_an_app_is_forgotten() -> None:
    """The examples have all that an app may have."""
    for each in fields(App):
        values = {getattr(known.app, each.name) for known in KNOWN}
        assert len(values) == 2 or each.name in ("node", "external"), each.name  # those are kept elsewhere


def test_a_node_with_another_name() -> None:
    assert journal.read(lines(app(KNOWN[0])), "n2").apps[4].app == evolve(WEB, node="n2")


def test_later_lines_hold() -> None:
    again = Known(WEB, netns=99)
    assert journal.read(lines(app(KNOWN[0]), app(again)), "n1").apps == {4: again}


def test_what_has_gone() -> None:
    gone = journal.encode(GoneLine(receiver=12))
    assert journal.read(lines(app(KNOWN[0]), receiver(UDP), gone), "n1").receivers == {}
    past = journal.read(lines(*map(app, KNOWN), receiver(UDP), journal.encode(GoneLine(app=4))), "n1")
    assert (list(past.apps), past.receivers, past.head.last_app) == ([9], {}, 9)


@given(st.integers(0, 2000))
def test_one_that_was_cut(at: int) -> None:
    text = lines(*map(app, KNOWN), receiver(UDP))
    cut = text[: len(HEAD) + at]
    past = journal.read(cut, "n1")
    assert len(past.apps) + len(past.receivers) == cut.count(b"\n") - 1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "empty"),
        (b"no line", "empty"),
        (b"nonsense\n", "line 1"),
        (app(KNOWN[0]), "begin"),
        (journal.encode(Head(journal.VERSION + 1)), "version 2"),
        (lines(b"nonsense\n"), "line 2"),
        (lines(HEAD), "second head"),
        (lines(b"\n", app(KNOWN[0])), "line 2"),
        (lines(receiver(UDP)), "line 2"),
        (lines(b'{"is":"app","id":1,"ip":"somewhere"}\n'), "somewhere"),
        (lines(b'{"is":"app","id":1,"ip":"10.1.1.1","token":"xyz"}\n'), "line 2"),
        (lines(app(KNOWN[0]), receiver(evolve(UDP, port=70000))), "line 3"),
        (lines(app(KNOWN[0]), receiver(evolve(UDP, family=5))), "line 3"),
        (lines(b"\xff\xfe\n"), "line 2"),
    ],
)
def test_one_that_is_wrong(text: bytes, why: str) -> None:
    with pytest.raises(JournalError, match=why):
        journal.read(text, "n1")


@given(st.binary() | st.binary().map(lambda each: HEAD + each + b"\n"))
def test_any_other_file(text: bytes) -> None:
    with contextlib.suppress(JournalError):
        journal.read(text, "n1")
