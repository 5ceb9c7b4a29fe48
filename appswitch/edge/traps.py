"""The trap handler: requests of the shim in, descriptors out.

One task a channel (a SOCK_SEQPACKET connection of some thread of some app). Each request stands alone; a frame that is
none ends its channel with a logged reason and touches no other.
"""

from __future__ import annotations

import errno
import os
import random
import socket
from collections.abc import Sequence

import structlog
import trio
from attrs import define

from appswitch.core import names, route
from appswitch.core.policy import may_reach
from appswitch.core.route import BindRequest, Egress, Kernel, Local, Refuse
from appswitch.edge import dial
from appswitch.edge.apps import Apps, Credentials, credentials_of
from appswitch.edge.dial import Asked, Dialer, start_egress
from appswitch.edge.listeners import ListenerSockets
from appswitch.edge.local_tcp import LocalTcp
from appswitch.edge.tcp_names import TcpNames
from appswitch.errors import AppSwitchError
from appswitch.model import DOMAIN, App
from appswitch.wire import trap
from appswitch.wire.trap import FrameError

GRACE = 0.005  # seconds that a connect to a starting app waits for its bind
PATIENCE_NONBLOCKING = 1.0  # seconds that a connect may wait for room in a full queue when it shouldn't block

log = structlog.get_logger()


@define
class Answer:
    """A reply and the descriptors that go along: a socket that is closed once it is sent, and some that we keep."""

    frame: bytes
    passed: socket.socket | None = None
    shared: Sequence[int] = ()

    def descriptors(self) -> list[int]:
        """In the order of the protocol."""
        return [*([self.passed.fileno()] if self.passed else []), *self.shared]


def failure(error: int) -> Answer:
    """The call fails with this errno."""
    return Answer(trap.encode_reply(error=error))


@define
class TrapHandler:
    """Serves the trap socket of one host."""

    apps: Apps
    sockets: ListenerSockets
    dialer: Dialer
    tcp: LocalTcp
    tcp_names: TcpNames
    rng: random.Random
    gateway: bool
    netns: int
    """The cookie of our own network namespace."""
    _turn: int = 0

    async def serve(self, listening: socket.socket) -> None:
        """Accepts channels for ever. listening: SOCK_SEQPACKET, non-blocking."""
        async with trio.open_nursery() as nursery:
            while True:
                await trio.lowlevel.wait_readable(listening.fileno())
                try:
                    channel, _ = listening.accept()
                except BlockingIOError:
                    continue
                except OSError as error:  # out of descriptors or memory: those who have a channel go on
                    log.error("can't accept a channel", error=str(error))
                    await trio.sleep(0.1)
                    continue
                nursery.start_soon(self._serve_channel, channel)

    async def _serve_channel(self, channel: socket.socket) -> None:
        channel.setblocking(False)
        with channel:
            caller = credentials_of(channel)
            app: App | None = None
            try:
                while app is None:
                    request = await self._receive(channel)
                    if request is None:
                        return
                    token, first = request
                    app, answer = self._identify(caller, token, first)
                    if answer is not None:
                        await self._send(channel, answer)
                with self.apps.hold(app):  # from its first request on, which may take its time
                    if answer is None:
                        await self._send(channel, await self._answer(app, first))
                    while (request := await self._receive(channel)) is not None:
                        await self._send(channel, await self._answer(app, request[1]))
            except FrameError as error:
                log.warning("malformed frame", pid=caller.pid, uid=caller.uid, reason=str(error))
            except OSError as error:
                log.debug("channel broke", pid=caller.pid, error=str(error))
            except Exception:  # a fault of ours: this caller's channel ends, the others go on
                log.exception("trap failed", pid=caller.pid)

    async def _receive(self, channel: socket.socket) -> tuple[bytes, trap.Request] | None:
        """The next request; None at the end."""
        while True:
            await trio.lowlevel.wait_readable(channel.fileno())
            try:
                # No room for control data: descriptors that a caller sends along are dropped by the kernel.
                frame = channel.recv(trap.FRAME_SIZE + 1)
            except BlockingIOError:
                continue
            return trap.decode(frame) if frame else None

    async def _send(self, channel: socket.socket, answer: Answer) -> None:
        """Blocks only on a caller that doesn't read its answers."""
        if answer.passed is None:
            await _send_message(channel, answer.frame, answer.shared)
            return
        with answer.passed:
            await _send_message(channel, trap.closes(answer.frame), answer.descriptors())
        await _send_message(channel, trap.CLOSED)

    def _identify(self, caller: Credentials, token: bytes, request: trap.Request) -> tuple[App | None, Answer | None]:
        """The first request on a channel: whose is it? And the answer, where that is not the app's."""
        app = self.apps.identify(caller, token)
        if app is not None:
            return app, None
        if isinstance(request, trap.Register):
            return self._register(caller, request)
        return None, failure(errno.ESRCH)  # ask it to register

    def _register(self, caller: Credentials, request: trap.Register) -> tuple[App | None, Answer]:
        """LD_PRELOAD without the wrapper: a process of the host's namespace says who it wants to be."""
        try:
            if caller.netns != self.netns or caller.uid not in (0, os.geteuid()):
                raise AppSwitchError("not-yours", "only processes of the host's namespace and of our user may register")
            settings = request.settings
            app = self.apps.new_app(
                name=names.check_name(settings["APPSWITCH_NAME"]) if settings.get("APPSWITCH_NAME") else None,
                ip=names.check_ip(settings["APPSWITCH_IP"]) if settings.get("APPSWITCH_IP") else None,
                tags=tuple(names.check_tag(tag) for tag in settings.get("APPSWITCH_TAGS", "").split(",") if tag),
                tcp=settings.get("APPSWITCH_TCP", "") not in ("", "0"),
                pid=caller.pid,
                uid=caller.uid,
                netns=False,
            )
        except AppSwitchError as error:
            log.warning("registration refused", pid=caller.pid, uid=caller.uid, reason=error.message)
            return None, Answer(trap.encode_reply(error=errno.EPERM, text=error.message.encode()))
        log.info("app", app=app.id, name=app.name, ip=str(app.ip), pid=caller.pid, by="preload")
        return app, Answer(trap.encode_reply(token=self.apps.new_token(app)))

    async def _answer(self, app: App, request: trap.Request) -> Answer:
        try:
            match request:
                case trap.Connect():
                    return await self._connect(app, request)
                case trap.Bind():
                    return self._bind(app, request)
                case trap.Who():
                    return self._who(request)
                case trap.NameOf():
                    return self._name_of(app, request)
                case trap.Listen():
                    return self._listen(app, request)
                case trap.Resolve():
                    return self._resolve(request)
                case trap.Register():
                    return failure(errno.EEXIST)
        except OSError as error:
            return failure(error.errno or errno.EIO)

    async def _connect(self, app: App, request: trap.Connect) -> Answer:
        self._turn += 1
        plan = self._plan_connect(app, request)
        if isinstance(plan, Refuse) and plan.error == errno.ECONNREFUSED and self.apps.is_starting(request.ip):
            # A bind takes us longer than the kernel. iperf -d binds in one thread and has the other side connect
            # back by another: a program that has just started may be about to bind.
            with trio.move_on_after(GRACE):
                await self.apps.changed()
            plan = self._plan_connect(app, request)
        match plan:
            case Refuse():
                log.info("connect refused", app=app.id, to=f"{request.ip} {request.port}", reason=plan.reason)
                return failure(plan.error)
            case Kernel():
                return Answer(trap.encode_reply(kind=trap.KERNEL))
            case Egress():
                return Answer(trap.encode_reply(kind=trap.FD_TCP), start_egress(plan, request.family))
        patience = PATIENCE_NONBLOCKING if request.nonblocking else dial.PATIENCE
        asked = Asked(app, (request.ip, request.port), request.family)
        if app.tcp or any(each.app.tcp for each in plan.candidates):
            client, name = await self.tcp.connect(plan, asked, patience)
            return Answer(trap.encode_reply(kind=trap.FD_TCP, text=name), client)
        client, _ = await self.dialer.connect(plan, asked, patience)
        if request.want_capabilities and app.netns and not plan.port:
            return self._with_capabilities(client, plan, request.want_epoch)
        return Answer(trap.encode_reply(kind=trap.FD_UNIX), client)

    def _plan_connect(self, app: App, request: trap.Connect) -> route.ConnectPlan:
        return route.plan_connect(
            self.apps.table,
            app,
            request.ip,
            request.port,
            turn=self._turn,
            gateway=self.gateway,
            bound=request.bound,
        )

    def _with_capabilities(self, client: socket.socket, plan: Local, want_epoch: bool) -> Answer:
        """The next connects to there need not ask.

        An app that shares our namespace gets none: the server couldn't tell it from us (shim/verify.h).
        """
        given = [each for each in plan.candidates if each.id in self.apps.table.listeners][: trap.MOST_CAPABILITIES]
        epoch = self.apps.epoch
        text = trap.encode_capabilities(epoch.now, plan.source, given, want_epoch)
        shared = [epoch.fd] if want_epoch else []
        shared += [self.sockets.handle(each.id) for each in given]
        return Answer(trap.encode_reply(kind=trap.FD_UNIX, text=text), client, shared)

    def _who(self, request: trap.Who) -> Answer:
        """A server asks whose connection it has accepted."""
        listener = self.apps.table.listeners.get(request.listener_id)
        epoch = self.apps.epoch
        if listener is None:
            return failure(errno.EACCES)
        client = self.apps.owner_of(request.netns)
        by_handler = request.netns == self.netns
        if not by_handler and (client is None or not may_reach(client, listener.app)):
            log.warning("connection rejected", to=listener.app.id, port=listener.port, netns=request.netns)
            return failure(errno.EACCES)
        shown = client or listener.app
        text = trap.encode_client(
            epoch.now,
            shown.ip,
            shown.alias,
            sibling=shown.ip == listener.app.ip,
            by_handler=by_handler,
            has_epoch=request.want_epoch,
        )
        return Answer(trap.encode_reply(text=text), shared=[epoch.fd] if request.want_epoch else [])

    def _name_of(self, app: App, request: trap.NameOf) -> Answer:
        name = self.tcp_names.find(request.cookie, app)
        return failure(errno.ENOENT) if name is None else Answer(trap.encode_reply(text=name))

    def _bind(self, app: App, request: trap.Bind) -> Answer:
        if request.port:
            self.apps.forget_closed(app, request.port)
        wanted = BindRequest(
            request.family, request.ip, request.port, request.v6only, request.reuse_addr, request.reuse_port
        )
        plan = route.plan_bind(self.apps.table, app, wanted, self.rng)
        if isinstance(plan, Refuse):
            log.info("bind refused", app=app.id, to=f"{request.ip} {request.port}", reason=plan.reason)
            return failure(plan.error)
        bound = self.sockets.open(plan)
        self.apps.table.add_listener(plan)
        self.apps.note_change()
        return Answer(trap.encode_reply(kind=trap.FD_UNIX), bound)

    def _listen(self, app: App, request: trap.Listen) -> Answer:
        listener = self.apps.table.listeners.get(request.listener_id)
        if listener is None or listener.app.id != app.id:
            return failure(errno.EINVAL)
        refused = route.plan_listen(self.apps.table, listener)
        if refused is not None:
            return failure(refused.error)
        self.apps.table.mark_listening(listener.id)
        self.apps.services_changed()
        log.info("listening", app=app.id, name=app.name, ip=str(listener.ip), port=listener.port)
        return Answer(trap.encode_reply())

    def _resolve(self, request: trap.Resolve) -> Answer:
        name = request.name.lower().removesuffix(".").removesuffix("." + DOMAIN)
        ip = self.apps.table.resolve(name)
        return Answer(trap.encode_reply(text=str(ip).encode())) if ip is not None else failure(errno.ENOENT)


async def _send_message(channel: socket.socket, message: bytes, fds: Sequence[int] = ()) -> None:
    while True:
        try:
            if fds:
                socket.send_fds(channel, [message], fds, socket.MSG_NOSIGNAL)
            else:
                channel.send(message, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            await trio.lowlevel.wait_writable(channel.fileno())
        else:
            return
