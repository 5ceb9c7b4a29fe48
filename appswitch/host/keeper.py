"""What the keeper of an app (host/processes.py) does for the trap handler, as long as the app lives.

It holds the connection that registered the app, makes sockets on demand (host/maker.py), and keeps a descriptor of each
socket that the trap handler serves in the app's network namespace: so questions to the DNS server wait for the next
trap handler when this one has gone. Then the keeper tries the socket again and again, and registers the app with
whoever listens there. It need not say which one: the kernel tells whose namespace it calls from, or it shows the app's
token.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from pathlib import Path

from appswitch.errors import AppSwitchError
from appswitch.host.control_client import ControlClient
from appswitch.host.maker import Maker

TRY_AFTER, TRY_EVERY = 0.02, 0.64  # seconds: the first pause, which doubles, and the longest
ANSWERS_WITHIN = 5.0  # seconds that a trap handler may take to answer


class Keeper:
    """client: the connection that registered the app. token: of an app without a namespace; the others have a maker.

    kept: the sockets that the trap handler serves in the namespace, beside those lent by the maker.
    """

    def __init__(
        self,
        trap: Path,
        client: ControlClient,
        token: str = "",
        maker: Maker | None = None,
        kept: Sequence[socket.socket] = (),
    ) -> None:
        self._trap = trap
        self._client: ControlClient | None = client
        self._token = token
        self._maker = maker
        self._kept = list(kept)
        self._pause = TRY_AFTER
        self._again_at = 0.0

    def signal_requests(self) -> None:
        """From now on this process gets SIGIO when there is something to do."""
        if self._client is not None:
            self._client.signal_end()
        if self._maker is not None:
            self._maker.signal_requests()

    def answer(self) -> bool:
        """Does what there is to do. True: the trap handler has gone just now, and no other has its place."""
        lost = self._has_lost_it()
        if self._client is None and time.monotonic() >= self._again_at:
            self._find()
        if self._client is not None and self._maker is not None:
            self._maker.answer()
        return lost and self._client is None

    def pause(self) -> float | None:
        """After how many seconds there is something to do again; None: SIGIO says so."""
        return None if self._client is not None else max(0.0, self._again_at - time.monotonic())

    def _has_lost_it(self) -> bool:
        if self._client is None or not self._client.is_closed():
            return False
        self._client.close()
        self._client = None
        if self._maker is not None:
            self._maker.renew()
        self._pause = TRY_AFTER
        self._again_at = 0.0
        return True

    def _find(self) -> None:
        try:
            self._client = self._register()
        except (AppSwitchError, OSError):  # there is none, or it doesn't know us: another one may
            self._again_at = time.monotonic() + self._pause
            self._pause = min(2 * self._pause, TRY_EVERY)
            return
        self.signal_requests()
        self._has_lost_it()  # before there was a signal for it

    def _register(self) -> ControlClient:
        passed = [*self._maker.lent, *self._kept, self._maker.far_end] if self._maker is not None else []
        client = ControlClient(self._trap)
        try:
            client.set_timeout(ANSWERS_WITHIN)
            client.call("resume", {"token": self._token}, [each.fileno() for each in passed])
            client.set_timeout(None)
        except BaseException:
            client.close()
            raise
        if self._maker is not None:
            self._maker.far_end.close()
        return client

    def close(self) -> None:
        """Closes what this process has of it: another one keeps."""
        if self._client is not None:
            self._client.close()
        if self._maker is not None:
            self._maker.close()
        for each in self._kept:
            each.close()
