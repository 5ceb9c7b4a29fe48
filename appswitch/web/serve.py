"""`serve --http`, put together."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import structlog

from appswitch.core.http_access import Access, needs_token, parse_place
from appswitch.core.traffic import Traffic
from appswitch.edge.http import HttpServer, open_listening
from appswitch.edge.questions import Questions
from appswitch.model import Address
from appswitch.web import token
from appswitch.web.pages import Pages
from appswitch.web.site import Site, json_page, static
from appswitch.web.state import State
from appswitch.web.stream import EventStream
from appswitch.wire.addresses import place

log = structlog.get_logger()


class Door:
    """The port, as it is before anything is served there; who may come in."""

    def __init__(self, text: str, state_dir: Path) -> None:
        """text: ADDR:PORT. AppSwitchError: it can't be read, or had, or there is no token to ask for."""
        ip, port = parse_place(text)
        shown = token.read_or_make(state_dir) if needs_token(ip) else None
        self.listening = open_listening(ip, port)
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

    async def serve(self, questions: Questions, obstacle: Callable[[], str | None]) -> None:
        """For ever. obstacle: why this host doesn't serve as it should; None: it does."""
        events, traffic = questions.apps.events, Traffic()
        events.taps.append(traffic.note)
        state = State(questions, traffic)
        stream, pages = EventStream(events, state), Pages(questions, obstacle)
        site = Site(
            self.access,
            {
                "/": static,
                "/static/": static,
                "/healthz": pages.health,
                "/api/state": json_page(state.json),
                "/api/events": stream.answer,
                "/api/why": json_page(pages.why),
                "/api/app/": json_page(pages.app),
            },
        )
        self.announce()
        await HttpServer(site.answer).serve(self.listening)
