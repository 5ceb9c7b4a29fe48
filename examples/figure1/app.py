"""App: says how often it was asked, for which it asks the DB, a Redis at 127.0.0.1."""

from __future__ import annotations

import http.server
import socket


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        with socket.create_connection(("127.0.0.1", 6379)) as db:
            db.sendall(b"INCR visits\r\n")
            count = db.recv(99).decode().strip(":\r\n")
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"App has asked the DB: visit {count}\n".encode())

    def log_message(self, *arguments: object) -> None:
        pass


http.server.ThreadingHTTPServer(("", 8000), Handler).serve_forever()
