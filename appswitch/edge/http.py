"""HTTP/1.1 (RFC 9112) by h11, for what only reads: GET and HEAD, no bodies of requests.

One task a connection; a handler makes a response of a request. Who asks is not trusted: a request's head has to be
there whole in time and may not be long, an answer has to be taken in time, and there are so many connections at most.
Where there are too many, the one that has waited longest for its request makes room.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping
from email.utils import formatdate
from http import HTTPStatus
from urllib.parse import parse_qs, unquote, urlsplit

import h11
import structlog
import trio
from attrs import define, field, frozen

from appswitch.errors import AppSwitchError
from appswitch.model import Address

MOST_HEAD = 16 * 1024  # bytes of a request's head
AT_ONCE = 4096  # of them, before its length is looked at
MOST_FIELDS = 32  # of a query
MOST_CONNECTIONS = 128
HEAD_WITHIN = 15.0  # seconds from when we could take a request until its head is there
SENT_WITHIN = 15.0  # seconds that PIECE may take
PIECE = 64 * 1024  # bytes
BACKLOG = 128
METHODS = ("GET", "HEAD")

Headers = tuple[tuple[str, str], ...]
Send = Callable[[bytes], Awaitable[None]]
"""A part of a body; trio.TooSlowError when it isn't taken."""

log = structlog.get_logger()


@frozen
class Request:
    """path: without the query, decoded; query: of a name that repeats, the last; headers: names in lower case."""

    method: str
    path: str
    query: Mapping[str, str] = field(factory=dict)
    headers: Mapping[str, str] = field(factory=dict)


@frozen
class Response:
    """stream: sends the body piece by piece, in the place of `body`; cancelled when the client has gone."""

    status: int
    body: bytes = b""
    type: str = "text/plain; charset=utf-8"
    headers: Headers = ()
    stream: Callable[[Send], Awaitable[None]] | None = None


Handler = Callable[[Request], Awaitable[Response]]


def open_listening(ip: Address, port: int) -> socket.socket:
    """A listening TCP socket; port 0: one that the kernel chooses. AppSwitchError `bad-http` when it can't be had."""
    listening = socket.socket(socket.AF_INET6 if ip.version == 6 else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if ip.version == 6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not ip.is_unspecified)
        address = socket.getaddrinfo(str(ip), port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)[0][4]
        listening.bind(address)
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        hints = {
            errno.EADDRINUSE: "another program has it: name another port with --http, or 0 for a free one",
            errno.EADDRNOTAVAIL: "`ip address` lists this host's addresses",
            errno.EACCES: "ports below 1024 are root's",
        }
        reason = f"--http: {ip} port {port} can't be used: {error.strerror}"
        raise AppSwitchError("bad-http", reason, hints.get(error.errno or 0, "")) from None
    return listening


@define
class HttpServer:
    """Serves one port."""

    handler: Handler
    _open: int = 0
    _waiting: dict[trio.CancelScope, None] = field(factory=dict)
    """The connections that have no request under way, the one that has waited longest first."""

    async def serve(self, listening: socket.socket) -> None:
        """Accepts connections for ever."""
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening))
        await trio.serve_listeners(self.serve_connection, [listener])

    async def serve_connection(self, stream: trio.abc.Stream) -> None:
        """Until it is closed, by either side."""
        if self._open >= MOST_CONNECTIONS and self._waiting:
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            oldest.cancel()
        elif self._open >= MOST_CONNECTIONS:
            log.debug("too many HTTP connections")
            await trio.aclose_forcefully(stream)
            return
        self._open += 1
        try:
            async with stream:
                await _Connection(stream, self.handler, self._waiting).serve()
        except* (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as errors:
            log.debug("HTTP connection broke", error=str(errors.exceptions[0]))
        except* trio.TooSlowError:
            log.info("HTTP client dropped: it doesn't take what is sent to it", within=SENT_WITHIN)
        except* Exception:  # a fault of ours: this connection ends, the others go on
            log.exception("HTTP request failed")
        finally:
            self._open -= 1


class _Connection:
    """One client's."""

    def __init__(self, stream: trio.abc.Stream, handler: Handler, waiting: dict[trio.CancelScope, None]) -> None:
        self._stream = stream
        self._handler = handler
        self._waiting = waiting
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=MOST_HEAD)

    async def serve(self) -> None:
        while True:
            try:
                head = await self._receive_head()
                if head is None:
                    return
                has_body = not isinstance(self._h11.next_event(), h11.EndOfMessage)
            except h11.RemoteProtocolError as error:
                if self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                    await self._send_head(Response(error.error_status_hint), b"")
                return
            response = Response(413, b"no request has a body here\n") if has_body else await self._answer(head)
            await self._respond(response, is_head=head.method == b"HEAD")
            if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
                return
            self._h11.start_next_cycle()

    async def _receive_head(self) -> h11.Request | None:
        """None: the client has gone, or takes too long."""
        with trio.move_on_after(HEAD_WITHIN) as scope:
            self._waiting[scope] = None
            try:
                while (event := self._h11.next_event()) is h11.NEED_DATA:
                    self._h11.receive_data(bytes(await self._stream.receive_some(AT_ONCE)))
                return event if isinstance(event, h11.Request) else None
            finally:
                self._waiting.pop(scope, None)
        return None

    async def _answer(self, head: h11.Request) -> Response:
        try:
            request = read_request(head.method, head.target, head.headers)
        except ValueError as error:
            return Response(400, f"{error}\n".encode())
        if request.method not in METHODS:
            return Response(405, b"what is here can only be read\n", headers=(("Allow", ", ".join(METHODS)),))
        try:
            return await self._handler(request)
        except Exception:  # a fault of ours: this request fails, the others go on
            log.exception("HTTP request failed", path=request.path)
            return Response(500, b"a fault of AppSwitch's: the log of `serve` has it\n")

    async def _respond(self, response: Response, *, is_head: bool) -> None:
        if is_head:
            await self._send_head(response, response.body)
        elif response.stream is None:
            await self._send_head(response, response.body)
            await self._send(h11.Data(data=response.body))
        else:
            await self._send_head(response, None)
            await self._send_stream(response.stream)
        await self._send(h11.EndOfMessage())

    async def _send_head(self, response: Response, body: bytes | None) -> None:
        """body: None: its length isn't known yet, and it is the last on this connection."""
        length = ("Connection", "close") if body is None else ("Content-Length", str(len(body)))
        headers = [("Date", formatdate(usegmt=True)), ("Content-Type", response.type), length, *response.headers]
        phrase = HTTPStatus(response.status).phrase
        await self._send(h11.Response(status_code=response.status, headers=headers, reason=phrase))

    async def _send_stream(self, stream: Callable[[Send], Awaitable[None]]) -> None:
        """Until it ends, or the client does."""

        async def send(data: bytes) -> None:
            await self._send(h11.Data(data=data))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._until_gone, nursery.cancel_scope)
            await stream(send)
            nursery.cancel_scope.cancel()

    async def _until_gone(self, scope: trio.CancelScope) -> None:
        while await self._stream.receive_some(PIECE):
            pass  # nothing more is answered on this connection
        scope.cancel()

    async def _send(self, event: h11.Event) -> None:
        data = self._h11.send(event) or b""
        for at in range(0, len(data), PIECE):
            with trio.fail_after(SENT_WITHIN):
                await self._stream.send_all(data[at : at + PIECE])


def read_request(method: bytes, target: bytes, headers: Iterable[tuple[bytes, bytes]]) -> Request:
    """ValueError: the target can't be read (RFC 9112 3.2)."""
    parts = urlsplit(target.decode("latin-1"))
    fields = parse_qs(parts.query, keep_blank_values=True, max_num_fields=MOST_FIELDS)
    return Request(
        method.decode("latin-1"),
        unquote(parts.path),
        {name: values[-1] for name, values in fields.items()},
        {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers},
    )
