"""The port that `serve --http` names, as it is before anything is served there, and who may come in."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import structlog

from appswitch.core.http_access import Access, needs_token, parse_place
from appswitch.edge.http import open_listening
from appswitch.host.succession import Handed
from appswitch.model import Address
from appswitch.web import token
from appswitch.wire.addresses import place

log = structlog.get_logger()


class Door:
    """Stands from when it is made until it is closed."""

    def __init__(self, text: str, state_dir: Path, handed: Handed) -> None:
        """text: ADDR:PORT. AppSwitchError: it can't be read, or had, or there is no token to ask for."""
        ip, port = parse_place(text)
        shown = token.read_or_make(state_dir) if needs_token(ip) else None
        self.listening = handed.take(socket.SOCK_STREAM, (str(ip), port)) or open_listening(ip, port)
        self.ip: Address = ip
        self.port: int = self.listening.getsockname()[1]
        self.access = Access(shown, cookie=f"appswitch_{self.port}")
        self._file = token.token_file(state_dir)

    def announce(self) -> None:
        """Says where it is. The token goes to who sits before it, and into no log."""
        url = f"http://{place(self.ip, self.port)}/"
        if self.access.token is None:
            log.info("the map and the metrics", url=url)
        elif sys.stderr.isatty():
            log.info("the map and the metrics", url=f"{url}?token={self.access.token}")
        else:
            log.info("the map and the metrics", url=url, token_file=str(self._file))

    def close(self) -> None:
        self.listening.close()
