"""A server that stands for the trap handler's: the page as it is, and a state that the test says."""

from __future__ import annotations

import json
import mimetypes
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import unquote, urlsplit

POLICY = "default-src 'self'"  # as the contract has it: no inline script, no inline style


class StubServer(ThreadingHTTPServer):
    """`state` is what /api/state says, `answers` what other paths do; `tell` is the stream of events."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.state: dict[str, Any] = {}
        self.answers: dict[str, Any] = {}
        self.asked: list[str] = []
        self.streams: list[queue.Queue[bytes | None]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/"

    def tell(self, event: dict[str, Any], kind: str = "message") -> None:
        """Sends an event to all that read the stream."""
        for stream in self.streams:
            stream.put(f"event: {kind}\ndata: {json.dumps(event)}\n\n".encode())

    def change(self, state: dict[str, Any]) -> None:
        """Another state, and tells of it."""
        self.state = state
        self.tell({}, "state")

    def stop(self) -> None:
        """Ends it; streams end, too."""
        self.shutdown()
        self.server_close()
        for stream in self.streams:
            stream.put(None)


class _Handler(BaseHTTPRequestHandler):
    server: StubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(self.path)
        if path == "/api/events":
            self._stream()
        elif path == "/api/state":
            self._send("application/json", json.dumps(self.server.state).encode())
        elif path in self.server.answers:
            self._send("application/json", json.dumps(self.server.answers[path]).encode())
        else:
            self._file(path)

    def _file(self, path: str) -> None:
        name = "index.html" if path == "/" else path.removeprefix("/static/")
        file = files("appswitch.web").joinpath("static", name)
        if "/" in name or not file.is_file():
            self._send("application/json", b'{"error": {"message": "there is no such thing"}}', 404)
        else:
            self._send(mimetypes.guess_type(name)[0] or "text/javascript", file.read_bytes())

    def _send(self, kind: str, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Connection", "close")  # so that a server which stops is gone
        self.end_headers()
        self.wfile.write(body)

    def _stream(self) -> None:
        events: queue.Queue[bytes | None] = queue.Queue()
        self.server.streams.append(events)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b": hello\n\n")
        self.close_connection = True
        try:
            while (event := events.get()) is not None:
                self.wfile.write(event)
        except OSError:
            pass  # the page has gone
        finally:
            self.server.streams.remove(events)


@contextmanager
def running_stub(state: dict[str, Any], port: int = 0) -> Iterator[StubServer]:
    """A stub on a port of its own, or on one that is said."""
    server = StubServer(port)
    server.state = state
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        if thread.is_alive():
            server.stop()
        thread.join()
