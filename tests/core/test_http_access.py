"""Who may ask over HTTP: by Host where there is no token, by the token where there is."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appswitch.core.http_access import Access, is_own_name, needs_token, parse_place
from appswitch.errors import AppSwitchError

TOKEN = "Zm9vYmFyYmF6cXV1eA"
OPEN, CLOSED = Access(), Access(TOKEN, cookie="appswitch_80")

texts = st.text() | st.binary().map(lambda raw: raw.decode("latin-1"))


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.0.0.1:8080", "localhost", "LocalHost:80", "localhost.", "a.localhost:1", "[::1]",
        "[::1]:8080", "10.1.2.3:8080", "[fd00::1]:80", "127.0.0.1:",
    ],
)  # fmt: skip
def test_names_that_cant_be_led_elsewhere(host: str) -> None:
    assert is_own_name(host)
    assert OPEN.judge(host, None, None) is None


@pytest.mark.parametrize(
    "host",
    [
        "", "evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "127.0.0.1@evil",
        "evil-localhost", "[evil.example]", "::1", "127.0.0.1:80:90", "127.0.0.1, evil.example", "127.1", "0x7f000001",
        "localhost\n", "[::1", ":80", "[]", "localhost:x",
    ],
)  # fmt: skip
def test_any_other_name_is_refused(host: str) -> None:
    refusal = OPEN.judge(host, None, None)
    assert refusal is not None
    assert refusal.status == 421


def test_no_host_is_refused() -> None:
    assert OPEN.judge(None, None, None) is not None


@given(texts)
def test_whatever_host_is_an_answer(host: str) -> None:
    if OPEN.judge(host, None, None) is None:
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        assert "localhost" in host.lower() or ip_address(name.strip("[]").rstrip("."))


@pytest.mark.parametrize(
    ("authorization", "cookie"),
    [
        (f"Bearer {TOKEN}", None),
        (f"bearer  {TOKEN} ", None),
        (None, f"appswitch_80={TOKEN}"),
        (None, f"other=1; appswitch_80={TOKEN}; more=2"),
        ("Bearer wrong", f"appswitch_80={TOKEN}"),
    ],
)
def test_who_has_the_token_may_ask_by_any_name(authorization: str | None, cookie: str | None) -> None:
    assert CLOSED.judge("map.example", authorization, cookie) is None


@given(st.none() | texts, st.none() | texts)
def test_who_hasnt_may_not(authorization: str | None, cookie: str | None) -> None:
    refusal = CLOSED.judge("localhost", authorization, cookie)
    assert refusal is not None
    assert refusal.status == 401
    assert TOKEN not in refusal.reason


@given(texts)
def test_a_part_of_the_token_is_none(text: str) -> None:
    assert not CLOSED.takes(text)
    assert not CLOSED.takes(TOKEN[:-1])
    assert not CLOSED.takes(TOKEN + text[:1] if text else None)
    assert not OPEN.takes(text)


def test_the_token_is_in_no_log() -> None:
    assert TOKEN not in repr(CLOSED)


@pytest.mark.parametrize(
    ("text", "ip", "port"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080), ("[::1]:80", "::1", 80), ("localhost:0", "127.0.0.1", 0),
        ("0.0.0.0:65535", "0.0.0.0", 65535), ("[fe80::1%eth0]:1", "fe80::1%eth0", 1),
    ],
)  # fmt: skip
def test_places(text: str, ip: str, port: int) -> None:
    assert parse_place(text) == (ip_address(ip), port)


@pytest.mark.parametrize(
    "text", ["", "8080", ":8080", "127.0.0.1", "127.0.0.1:", "::1:80", "host:80", "127.0.0.1:65536", "127.0.0.1:-1",
             "[::1]", "127.0.0.1:\uff18", "127.0.0.1:80/", "http://127.0.0.1:80"],
)  # fmt: skip
def test_no_places(text: str) -> None:
    with pytest.raises(AppSwitchError) as caught:
        parse_place(text)
    assert caught.value.reason == "bad-http"
    assert "127.0.0.1:8080" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "needed"),
    [("127.0.0.1", False), ("127.9.9.9", False), ("::1", False), ("::ffff:127.0.0.1", False), ("0.0.0.0", True),
     ("::", True), ("10.0.0.1", True), ("fe80::1", True)],
)  # fmt: skip
def test_where_a_token_is_needed(text: str, needed: bool) -> None:
    assert needs_token(ip_address(text)) is needed
