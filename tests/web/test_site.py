"""Paths: what is there, who may see it, and that nothing else of the host is."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appswitch.core.http_access import Access
from appswitch.edge.http import Request, Response
from appswitch.errors import AppSwitchError
from appswitch.web import site, token
from appswitch.web.pages import Pages
from appswitch.web.site import Site, json_page, static
from tests.web.world import World, get

TOKEN = "c2VjcmV0LXRva2Vu"


async def below(request: Request) -> Response:
    return Response(200, request.path.encode())


async def fails(request: Request) -> object:
    raise AppSwitchError(request.path.removeprefix("/fails/"), "it can't be", "do it otherwise")


PAGES = {"/": static, "/static/": static, "/below/": below, "/healthz": below, "/fails/": json_page(fails)}
OPEN, CLOSED = Site(Access(), PAGES), Site(Access(TOKEN, "appswitch_8080"), PAGES)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "static"
    (directory / "sub").mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    (directory / ".hidden").write_text("secret")
    (directory / "index.html").write_text("<!doctype html>")
    (directory / "main.mjs").write_text("1")
    (directory / "sub" / "a-b_c.css").write_text("a {}")
    (directory / "icon.svg").write_text("<svg/>")
    monkeypatch.setattr(site, "STATIC", directory)
    return directory


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/static/index.html", "text/html; charset=utf-8"),
        ("/static/main.mjs", "text/javascript; charset=utf-8"),
        ("/static/sub/a-b_c.css", "text/css; charset=utf-8"),
        ("/static/icon.svg", "image/svg+xml"),
    ],
)
async def test_files(files: Path, path: str, kind: str) -> None:
    response = await OPEN.answer(get(path))
    assert (response.status, response.type) == (200, kind)
    headers = dict(response.headers)
    assert headers["Content-Security-Policy"].startswith("default-src 'self';")
    assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    ["/static/", "/static/none", "/static/../secret", "/static/sub/../../secret", "/static//etc/passwd", "/static/sub",
     "/static/.hidden", "/static/sub/", "/static/main.mjs\0", "/static/main.mjs\n", "/nothing", "/stati", "",
     "*", "/below"],
)  # fmt: skip
async def test_no_files(files: Path, path: str) -> None:
    response = await OPEN.answer(get(path))
    assert response.status == 404
    assert b"secret" not in response.body


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["..", ".", "/", "secret", "sub", "%2e", "\0", "~"]) | st.text(max_size=3)))
async def test_nothing_outside(files: Path, parts: list[str]) -> None:
    response = await static(get("/static/" + "".join(parts)))
    assert b"secret" not in response.body


async def test_what_is_below_a_path() -> None:
    assert (await OPEN.answer(get("/below/a/b"))).body == b"/below/a/b"


@pytest.mark.parametrize(("reason", "status"), [("unknown-app", 404), ("unknown-name", 404), ("bad-service", 400)])
async def test_errors(reason: str, status: int) -> None:
    response = await OPEN.answer(get(f"/fails/{reason}"))
    assert response.status == status
    assert json.loads(response.body)["error"] == {
        "reason": reason, "message": "it can't be", "hint": "do it otherwise",
    }  # fmt: skip


async def test_a_name_that_may_have_been_led_here() -> None:
    response = await OPEN.answer(get("/below/", host="evil.example"))
    assert response.status == 421
    assert (await OPEN.answer(get("/healthz", host="evil.example"))).status == 200


async def test_without_the_token() -> None:
    response = await CLOSED.answer(get("/below/"))
    assert response.status == 401
    assert dict(response.headers)["WWW-Authenticate"] == "Bearer"
    assert (await CLOSED.answer(get("/below/", {"token": "wrong"}))).status == 401
    assert (await CLOSED.answer(get("/healthz"))).status == 200


async def test_with_the_token() -> None:
    """In a header; or once in the query, and then by the cookie that this sets."""
    assert (await CLOSED.answer(get("/below/", authorization=f"Bearer {TOKEN}"))).status == 200
    response = await CLOSED.answer(get("/below/ä", {"token": TOKEN, "x": "1"}))
    headers = dict(response.headers)
    assert (response.status, headers["Location"]) == (303, "/below/%C3%A4?x=1")
    cookie, *attributes = headers["Set-Cookie"].split("; ")
    assert {"HttpOnly", "SameSite=Lax"} <= set(attributes)
    assert (await CLOSED.answer(get("/below/ä", cookie=cookie, host="map.example"))).status == 200


@pytest.mark.parametrize("path", ["//evil.example", "///evil.example", "/\\evil.example"])
async def test_the_way_back_leads_to_no_other_host(path: str) -> None:
    response = await CLOSED.answer(get(path, {"token": TOKEN}))
    location = dict(response.headers)["Location"]
    assert location.startswith("/")
    assert not location.startswith(("//", "/\\"))


def test_a_token_is_made_once_and_only_ours_to_read(tmp_path: Path) -> None:
    made = token.read_or_make(tmp_path)
    assert len(made) >= 40
    assert token.read_or_make(tmp_path) == made
    assert token.token_file(tmp_path).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "content", ["", "short", "with spaces in between it", 'quoted"abcdefghijklmnop', "a;bcdefghijklmnopq"]
)
def test_a_token_that_is_none(tmp_path: Path, content: str) -> None:
    with os.fdopen(os.open(token.token_file(tmp_path), os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
        file.write(content)
    with pytest.raises(AppSwitchError) as caught:
        token.read_or_make(tmp_path)
    assert caught.value.reason == "bad-token"


def test_a_token_that_others_can_read(tmp_path: Path) -> None:
    token.read_or_make(tmp_path)
    token.token_file(tmp_path).chmod(0o640)
    with pytest.raises(AppSwitchError, match="can be read by others"):
        token.read_or_make(tmp_path)


def test_a_token_that_cant_be_kept(tmp_path: Path) -> None:
    with pytest.raises(AppSwitchError, match="can't be used"):
        token.read_or_make(tmp_path / "none")


async def test_an_app(world: World) -> None:
    pages = Pages(world.questions, lambda: None)
    found = await pages.app(get("/api/app/db"))
    assert found["app"]["id"] == world.db.number
    assert [each["port"] for each in found["services"]] == [5432]
    assert found["clients"] == [
        {
            "app": world.web.number, "node": "n1", "name": "web", "ip": str(world.web.ip), "port": 5432, "proto": "tcp",
            "allowed": True, "rule": "grp",
            "reason": "the grp rule allows it: the client has no grp, the server no grp",
        }
    ]  # fmt: skip
    for text in ("2", "n1/2"):
        assert await pages.app(get(f"/api/app/{text}")) == found
    with pytest.raises(AppSwitchError, match="there is no app 'none'"):
        await pages.app(get("/api/app/none"))


async def test_why(world: World) -> None:
    pages = Pages(world.questions, lambda: None)
    told = await pages.why(get("/api/why", {"client": "web", "dest": "db:5432"}))
    assert told == await world.questions.why("web", "db:5432")
    assert told["verdict"] == "allow"
    with pytest.raises(AppSwitchError, match="client and dest"):
        await pages.why(get("/api/why", {"client": "web"}))


@pytest.mark.parametrize(("obstacle", "status"), [(None, 200), ("starting", 503)])
async def test_health(world: World, obstacle: str | None, status: int) -> None:
    response = await Pages(world.questions, lambda: obstacle).health(get("/healthz"))
    assert response.status == status
    assert json.loads(response.body)["reason"] == obstacle
