"""The page that takes votes: each goes into a queue at `redis`. It knows nothing of AppSwitch."""

from __future__ import annotations

import json
import secrets
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import redis

PAGE = b"""<!doctype html><title>Cats or dogs?</title><h1>Cats or dogs?</h1>
<form method=post><button name=vote value=cats>Cats</button> <button name=vote value=dogs>Dogs</button></form>
"""
queue = redis.Redis("redis")


class Page(BaseHTTPRequestHandler):
    """GET shows it, POST takes a vote; a cookie says who votes."""

    def do_GET(self) -> None:
        """The page."""
        self._answer(PAGE, self._voter())

    def do_POST(self) -> None:
        """A vote, which replaces the voter's former one."""
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        voter = self._voter()
        queue.rpush("votes", json.dumps({"voter": voter, "vote": form["vote"][0]}))
        self._answer(PAGE + b"<p>Thank you.\n", voter)

    def _voter(self) -> str:
        cookie = SimpleCookie(self.headers["Cookie"]).get("voter")
        return cookie.value if cookie else secrets.token_hex(8)

    def _answer(self, body: bytes, voter: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Set-Cookie", f"voter={voter}")
        self.end_headers()
        self.wfile.write(body)


ThreadingHTTPServer(("", 80), Page).serve_forever()
