"""What is where: paths to answers."""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from urllib.parse import quote, urlencode

import msgspec
from attrs import define, field

from appswitch.core.http_access import TOKEN, Access, Refusal
from appswitch.edge.http import Handler, Request, Response
from appswitch.errors import AppSwitchError

STATIC = Path(__file__).parent / "static"
JSON = "application/json"
UNKNOWN = ("unknown-app", "unknown-name")  # what isn't there, rather than asked wrongly

GUARDS = (
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
)
"""No page of another site gets at what is here, and ours gets nothing from elsewhere."""

mimetypes.add_type("text/javascript", ".mjs")  # not everywhere known


@define
class Site:
    """access: who may ask; open: what anybody may."""

    access: Access
    pages: Mapping[str, Handler]
    """By their path; one that ends in `/` is for all below it, too."""
    open: frozenset[str] = field(default=frozenset({"/healthz"}))

    async def answer(self, request: Request) -> Response:
        """The response to any request."""
        response = self._refuse(request) or await self._answer(request)
        return Response(response.status, response.body, response.type, (*GUARDS, *response.headers), response.stream)

    def _refuse(self, request: Request) -> Response | None:
        if request.path in self.open:
            return None
        shown = request.query.get(TOKEN)
        if shown is not None and self.access.takes(shown):
            return self._let_in(request, shown)
        headers = request.headers
        refusal = self.access.judge(headers.get("host"), headers.get("authorization"), headers.get("cookie"))
        return _refused(refusal) if refusal else None

    def _let_in(self, request: Request, shown: str) -> Response:
        """To the same page, by a cookie: the token is to stay in no address bar, history or bookmark."""
        query = urlencode({name: value for name, value in request.query.items() if name != TOKEN})
        path = "/" + quote(request.path.lstrip("/"))  # two slashes would be another host
        cookie = f"{self.access.cookie}={shown}; HttpOnly; SameSite=Lax; Path=/"
        return Response(303, headers=(("Location", path + (query and f"?{query}")), ("Set-Cookie", cookie)))

    async def _answer(self, request: Request) -> Response:
        page = self.pages.get(request.path)
        if page is None:
            above = (
                each for path, each in self.pages.items() if path[-1] == "/" != path and request.path.startswith(path)
            )
            page = next(above, None)
        if page is None:
            return Response(404, b"there is nothing at this path\n")
        try:
            return await page(request)
        except AppSwitchError as error:
            return failed(error)


def _refused(refusal: Refusal) -> Response:
    headers = (("WWW-Authenticate", "Bearer"),) if refusal.status == 401 else ()
    return Response(refusal.status, f"{refusal.reason}\n".encode(), headers=headers)


def failed(error: AppSwitchError) -> Response:
    """An error in JSON."""
    body = {"reason": error.reason, "message": error.message, "hint": error.hint}
    return Response(404 if error.reason in UNKNOWN else 400, msgspec.json.encode({"error": body}), JSON)


def json_page(make: Callable[[Request], Awaitable[object]]) -> Handler:
    """A page of what `make` returns; bytes are JSON already."""

    async def answer(request: Request) -> Response:
        made = await make(request)
        return Response(200, made if isinstance(made, bytes) else msgspec.json.encode(made), JSON)

    return answer


async def static(request: Request) -> Response:
    """`/static/NAME`, or the page itself at `/`. Files are small, and the kernel has them in memory."""
    name = request.path.removeprefix("/static/") if request.path != "/" else "index.html"
    if re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)*", name, re.ASCII) is None:
        return Response(404, b"no such file\n")
    try:
        body = (STATIC / name).read_bytes()
    except OSError:
        return Response(404, b"no such file\n")
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return Response(200, body, f"{kind}; charset=utf-8" if kind.startswith("text/") else kind)
