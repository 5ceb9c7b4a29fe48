"""`appswitch serve`: the trap handler of a host, put together.

One process, one thread, in the host's network namespace. Everything in it is a task of one nursery: the trap socket,
the control socket, the sweep; when one of them fails, the server stops.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import re
import resource
import signal
import socket
import sys
import time
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
import trio
from attrs import define, field, frozen

from appswitch import cluster, gateway
from appswitch.cluster import ClusterSettings, Ports
from appswitch.core.answers import Answers
from appswitch.core.balance import Balancer
from appswitch.core.exits import Exits
from appswitch.core.service_table import ServiceTable
from appswitch.edge.apps import Apps
from appswitch.edge.askers import Askers
from appswitch.edge.backends import Backends
from appswitch.edge.calls import Calls
from appswitch.edge.connections import Connections, Source
from appswitch.edge.containers import Containers
from appswitch.edge.control import ControlServer
from appswitch.edge.datagrams import Datagrams
from appswitch.edge.deliver import Deliverer
from appswitch.edge.diag import Diag
from appswitch.edge.dial import Dialer
from appswitch.edge.dns import DnsServer, Resolver, Upstream, look_up, publish_answer
from appswitch.edge.egress import EgressSockets
from appswitch.edge.epoch import Epoch
from appswitch.edge.events import Events
from appswitch.edge.exposing import Exposing, PortsOpener
from appswitch.edge.external_way import ExternalWay
from appswitch.edge.externals import Externals
from appswitch.edge.flow_announces import FlowAnnouncer, FlowJudge
from appswitch.edge.flows import Flows
from appswitch.edge.healths import GatewayHealths
from appswitch.edge.homes import Homes
from appswitch.edge.journal import Journal, open_journal
from appswitch.edge.leaving import Leaving
from appswitch.edge.letting_flows_out import LettingFlowsOut
from appswitch.edge.letting_out import LettingOut
from appswitch.edge.listeners import ListenerSockets
from appswitch.edge.loads import Loads
from appswitch.edge.local_tcp import LocalTcp
from appswitch.edge.local_unix import LocalUnix
from appswitch.edge.lookups import ByGateways, ForOthers
from appswitch.edge.named import NamedSockets
from appswitch.edge.nodes import Nodes, OneNode
from appswitch.edge.peers import Peers
from appswitch.edge.placed import placed_connections
from appswitch.edge.policing import Policing
from appswitch.edge.questions import Questions
from appswitch.edge.relay import Relay
from appswitch.edge.remote import Remote
from appswitch.edge.resumption import take_back
from appswitch.edge.sealed import Sealed
from appswitch.edge.succession import Succession
from appswitch.edge.tcp_names import TcpNames
from appswitch.edge.telling import keep_told
from appswitch.edge.traps import TrapHandler
from appswitch.edge.trouble import OfTrio
from appswitch.errors import AppSwitchError
from appswitch.host import privileges, resolv_conf
from appswitch.host.containers import open_directory
from appswitch.host.cookies import netns_of
from appswitch.host.namespace import open_diag_socket
from appswitch.host.own_sockets import open_own_sockets, show_us
from appswitch.host.paths import socket_links
from appswitch.host.succession import Handed, Predecessor, Successor, ask
from appswitch.host.systemd import Manager
from appswitch.model import DOMAIN, App, Node
from appswitch.wire.dns import Zone
from appswitch.wire.journal import VERSION
from appswitch.wire.peer import AskHealths, Leave, LookUp, OpenFlow, OpenOutside, OpenPorts

if TYPE_CHECKING:
    from appswitch.web.serve import Face

REGISTER_WITHIN = 5.0  # seconds; who is making an app can't begin again with our successor; all else goes on meanwhile
FINISH_WITHIN = 0.5  # seconds; what takes longer, as a connect that waits for room, its caller asks our successor again
PREDECESSOR_WITHIN = 5.0  # seconds; one that goes just now for want of apps still holds the lock
LINGER = 1.0  # seconds; a script's next spawn finds the trap handler still there
FIRST_CALL_WITHIN = 30.0  # seconds; a server started by `spawn` gives up after that

log = structlog.get_logger()


@frozen
class Settings:
    """What `serve` is told. trap: the trap socket's path; state_dir: None: beside the trap socket; egress: whether apps
    may leave where no rule fits; manager: the service manager that started us, sockets: what it listens on for us;
    containers: what they are to have mounted; take_over: from the one that serves, if one does.
    """

    trap: Path
    node: str
    cluster: ClusterSettings | None = None
    gateway: bool = False
    gateway_bind: tuple[str, ...] = ()
    gateway_limits: tuple[str, ...] = ()
    policy: Path | None = None
    egress: bool = True
    state_dir: Path | None = None
    containers: Path | None = None
    http: str | None = None
    dns_upstream: tuple[str, ...] = ()
    exit_when_idle: bool = False
    ready_fd: int | None = None
    manager: Manager = field(factory=Manager)
    sockets: tuple[socket.socket, ...] = ()
    take_over: bool = False


def log_to_stderr() -> None:
    """To be called before anything can be worth a line."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
        ],
        logger_factory=_LogFactory(sys.stderr),
    )
    OfTrio().install()


def run(settings: Settings) -> None:
    """Serves until SIGTERM or SIGINT. AppSwitchError when it can't start."""
    policing = Policing(settings.policy, settings.egress)
    entrance = gateway.read_settings(settings.gateway, settings.gateway_bind, settings.gateway_limits)
    _raise_descriptor_limit()
    privileges.drop()
    patience = PREDECESSOR_WITHIN if settings.exit_when_idle else 0.0
    state_dir = (settings.state_dir or settings.trap.with_name(settings.trap.name + ".state")).absolute()
    with contextlib.ExitStack() as stack:
        successor = Successor()
        stack.callback(successor.close)
        predecessor, handed = None, Handed()
        if settings.take_over:
            predecessor = ask(settings.trap, settings.node, state_dir, VERSION)
        if predecessor is not None:
            stack.callback(predecessor.close)
            handed = predecessor.handed
        own = open_own_sockets(settings.trap, settings.sockets, patience, predecessor, successor)
        trap, control = stack.enter_context(own)
        try:
            state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise _no_state_dir(state_dir, error) from None
        containers, ports, face = None, None, None
        if settings.containers:
            containers = stack.enter_context(open_directory(settings.containers, handed, successor))
        if settings.cluster:
            ports = stack.enter_context(cluster.open_ports(settings.cluster, handed, successor))
        if settings.http is not None:
            face = _open_face(settings.http, state_dir, handed, successor)
            stack.callback(face.close)
        if predecessor is not None:  # all that can be said against us has been said
            _take_over(predecessor, [each for each in (trap, control, containers) if each is not None])
        try:
            journal = open_journal(state_dir, settings.node)
            stack.callback(journal.close)
            sockets = ListenerSockets(state_dir / "listeners", journal.past.head.salt, socket_links(settings.trap))
        except OSError as error:
            raise _no_state_dir(state_dir, error) from None
        stack.callback(sockets.close)
        epoch = Epoch()
        stack.callback(epoch.close)
        try:
            trio.run(
                _serve,
                settings,
                policing,
                trap,
                control,
                containers,
                sockets,
                epoch,
                journal,
                state_dir,
                ports,
                entrance,
                face,
                successor,
            )
        except ExceptionGroup as group:  # nurseries wrap what ends them
            if group.split(AppSwitchError)[1] is not None:  # a fault of ours
                raise
            raise _first_of(group) from None


def _no_state_dir(state_dir: Path, error: OSError) -> AppSwitchError:
    return AppSwitchError(
        "no-directory", f"{state_dir} can't be used: {error.strerror}", "name another place with --state-dir"
    )


def _open_face(place: str, state_dir: Path, handed: Handed, successor: Successor) -> Face:
    from appswitch.web.serve import Face  # what it needs is loaded only where it is used

    return Face(place, state_dir, handed, successor)


def _take_over(predecessor: Predecessor, listening: list[socket.socket]) -> None:
    began = time.monotonic()
    predecessor.release()
    for each in listening:
        show_us(each)
    log.info("took over", pid=predecessor.pid, waited=round(time.monotonic() - began, 3))


def _first_of(group: ExceptionGroup[Exception]) -> Exception:
    error: Exception = group
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


class _Log(structlog.PrintLogger):
    """A full disk, or a pipe that nobody reads any more, costs the line and not the server."""

    def msg(self, message: str) -> None:
        with contextlib.suppress(OSError):
            super().msg(message)

    log = debug = info = warn = warning = error = exception = critical = fatal = failure = err = msg


class _LogFactory(structlog.PrintLoggerFactory):
    def __call__(self, *args: object) -> structlog.PrintLogger:
        return _Log(self._file)


async def _serve(
    settings: Settings,
    policing: Policing,
    trap: socket.socket,
    control: socket.socket,
    containers: socket.socket | None,
    sockets: ListenerSockets,
    epoch: Epoch,
    journal: Journal,
    state_dir: Path,
    ports: Ports | None,
    entrance: gateway.Entrance | None,
    face: Face | None,
    successor: Successor,
) -> None:
    rng = random.SystemRandom()
    netns = netns_of(trap)
    last_app, last_listener = journal.past.head.last_app, max(journal.past.receivers, default=0)
    table = ServiceTable(settings.node, last_app, last_listener, alone=settings.cluster is None)
    policing.answers = Answers(table.apps)
    events = Events(settings.node)
    apps = Apps(table, sockets, epoch, events, journal)
    tcp_names = TcpNames()
    events.take = tcp_names.take
    exits = Exits(settings.gateway)
    balancer = Balancer(table)
    host = Diag(open_diag_socket())
    egress = EgressSockets(host)
    sources: list[Source] = [tcp_names.connections, partial(placed_connections, apps), egress.connections]
    connections = Connections(apps, sockets.salt, host, sources)
    loads = Loads(connections.snapshot)
    named = NamedSockets(sockets, apps.listener_gone, rng, tcp_names.is_taken)
    deliverer = Deliverer(named, tcp_names)
    sealed = Sealed(tcp_names.diags)
    dialer = Dialer(table, balancer, loads, LocalUnix(named), LocalTcp(deliverer, sealed))
    relay = Relay()
    search, name_servers = read_resolv_conf(Path("/etc/resolv.conf"))
    upstream = Upstream([(server, 53) for server in name_servers])
    if settings.dns_upstream:
        upstream = Upstream([parse_upstream(text) for text in settings.dns_upstream])
    zone = Zone(DOMAIN, table.resolve, table.names_of, table.owns, search, table.ports_of, port_of)

    def new_dns(app: App) -> DnsServer:
        return DnsServer(zone, resolver, partial(publish_answer, events, app), partial(policing.learn, app.id))

    homes = Homes(apps, new_dns)
    backends = Backends(table, balancer, partial(look_up, upstream), exits.check)

    def address_of(name: str) -> tuple[str, int] | None:
        node = nodes.called(name)
        return (node.address, node.port) if node.address and node.port else None

    secret = settings.cluster.secret if settings.cluster else b""
    peers = Peers(settings.node, secret, address_of)
    lookup_exits = Exits(settings.gateway)
    resolver: Resolver = upstream if settings.dns_upstream else ByGateways(lookup_exits, peers, upstream)
    flows = Flows(apps, policing, secret, FlowAnnouncer(peers).announce, address_of)
    sources.append(flows.to_outside)
    askers = Askers()
    resolvers = [ip_address(server) for server in name_servers]
    leaving = Leaving(exits, peers, sealed, relay, named, tcp_names, events)
    dialer.outside = ExternalWay(exits, leaving, backends, named, tcp_names)
    datagrams = Datagrams(apps, policing, homes, askers, flows, resolvers, exits, netns)
    calls = Calls(
        apps,
        sockets,
        dialer,
        egress,
        tcp_names,
        balancer,
        datagrams,
        policing,
        exits,
        leaving,
        rng,
        netns,
        partial(look_up, upstream),
    )
    handler = TrapHandler(apps, calls, netns)
    others: cluster.Cluster | None = None
    nodes: Nodes = OneNode(Node(settings.node, gateway=settings.gateway))
    if settings.cluster is not None or settings.gateway:
        tcp_names.diags.append(host)
    if settings.cluster is not None and ports is not None:
        dialer.remote = Remote(peers, named, tcp_names)
        others = cluster.make(
            settings.cluster, nodes.own, state_dir, apps, policing, peers, flows, deliverer, successor
        )
        judge = FlowJudge(apps, policing, homes, askers, flows, others.arrivals.client_of)
        peers.handlers[OpenFlow] = judge.answer
        nodes = others.router
        calls.refresh = others.router.refresh
        exits.others, exits.own_ports = others.router.gateways, others.router.own_ports
        lookup_exits.others = others.router.gateways
        peers.handlers[LookUp] = ForOthers(exits, upstream).answer
        client_of = others.arrivals.client_of
        letting_out = LettingOut(apps, policing, exits, others.expected, egress, relay, client_of, backends)
        peers.handlers[Leave] = letting_out.leave
        peers.handlers[OpenOutside] = LettingFlowsOut(apps, policing, exits, flows, client_of).answer
    healths = GatewayHealths(settings.node, backends if settings.gateway else None, peers, nodes.gateways)
    peers.handlers[AskHealths] = healths.answer
    externals = Externals(apps, state_dir, healths)
    exposing = Exposing(nodes, peers=peers if others else None)
    if entrance is not None:
        exposing.ports = gateway.make(
            nodes.own, entrance, apps, policing, balancer, loads, deliverer, relay, host, dialer.remote, peers
        )
        if others is not None:
            peers.handlers[OpenPorts] = PortsOpener(exposing.ports, others.arrivals.client_of).answer
    questions = Questions(apps, nodes, connections.snapshot, externals, policing, partial(look_up, resolver))
    control_server = ControlServer(apps, new_dns, netns, questions, exposing, datagrams.share_dns)
    await take_back(apps, sockets, host)
    externals.load()
    health = Health(others)
    if face is not None:
        face.begin(questions, handler, calls, health.obstacle)
    async with trio.open_nursery() as nursery:
        manager = settings.manager
        await nursery.start(_stop_on_signal, nursery.cancel_scope, manager)  # before we say that we are ready
        if face is not None:
            nursery.start_soon(face.run)
        if settings.policy is not None or manager.listens:
            await nursery.start(policing.reload_on_signal, apps, connections.snapshot, manager)
        if others is not None:
            await nursery.start(others.run, ports)
        if exposing.ports is not None:
            await nursery.start(exposing.ports.run)
        nursery.start_soon(homes.run)
        nursery.start_soon(leaving.run)
        if settings.gateway:
            nursery.start_soon(backends.run)
        nursery.start_soon(handler.keep_turns)
        nursery.start_soon(handler.serve, trap)
        if containers is not None:
            nursery.start_soon(handler.serve, containers, Containers(apps, settings.trap))
        nursery.start_soon(control_server.serve, control)
        nursery.start_soon(apps.keep_swept)
        nursery.start_soon(loads.keep)
        nursery.start_soon(tcp_names.keep_swept)
        nursery.start_soon(sealed.close_at_end)
        finish = partial(_finish, apps, control_server, handler)
        stop = nursery.cancel_scope.cancel
        control_server.succession = Succession(successor, settings.node, state_dir, finish, stop)
        if settings.exit_when_idle:
            nursery.start_soon(_stop_when_idle, apps, control_server, nursery.cancel_scope)
        health.serving = True
        log.info("serving", node=settings.node, socket=str(settings.trap), gateway=settings.gateway)
        if settings.ready_fd is not None:
            os.write(settings.ready_fd, b"ready\n")
            os.close(settings.ready_fd)
        nursery.start_soon(keep_told, manager, apps, nodes)


@define
class Health:
    """How we are. serving: the trap socket is served."""

    others: cluster.Cluster | None
    serving: bool = False

    def obstacle(self) -> str | None:
        """Why apps aren't served as they should be; None: they are."""
        if not self.serving:
            return "starting: the trap socket isn't served yet"
        if self.others is not None and self.others.serf.refused is not None:
            return self.others.serf.refused
        if self.others is not None and not self.others.serf.has_met:
            return "joining: no other host of the cluster has answered yet"
        return None


async def _stop_on_signal(
    scope: trio.CancelScope, manager: Manager, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for number in signals:
            log.info("stopping", signal=signal.Signals(number).name)
            manager.stopping()
            scope.cancel()


async def _finish(apps: Apps, control: ControlServer, handler: TrapHandler) -> None:
    """For who takes over: what is under way is done, and nobody is given up meanwhile."""
    with trio.move_on_after(REGISTER_WITHIN):
        await control.finish()
    apps.freeze()
    with trio.move_on_after(FINISH_WITHIN):
        await handler.finish()


async def _stop_when_idle(apps: Apps, control: ControlServer, scope: trio.CancelScope) -> None:
    with trio.move_on_after(FIRST_CALL_WITHIN):
        await apps.changed()
    idle = False
    while not idle:
        while _has_processes(apps) or control.connections:
            await apps.changed()
        await trio.sleep(LINGER)
        idle = not _has_processes(apps) and not control.connections
    log.info("stopping", reason="the last app has gone")
    scope.cancel()


def _has_processes(apps: Apps) -> bool:
    return any(not each.external for each in apps.table.own_apps())


def _raise_descriptor_limit() -> None:
    """A descriptor a listener and one a channel: as many as may be."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def read_resolv_conf(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(search suffixes, name servers) of a resolv.conf(5); both empty when it can't be read."""
    try:
        found = resolv_conf.read(path)
    except OSError as error:
        log.warning("no upstream name servers", file=str(path), error=os.strerror(error.errno or errno.EIO))
        return (), ()
    for text in found.unusable:
        log.warning("not the address of a name server", file=str(path), text=text)
    return found.search, found.servers


def port_of(service: str, proto: str) -> int | None:
    """The port of a service by its name (services(5))."""
    try:
        return socket.getservbyname(service, proto)
    except OSError:
        return None


def parse_upstream(text: str) -> tuple[str, int]:
    """`ADDR`, `ADDR:PORT` or `[V6]:PORT`. AppSwitchError when it is none of them."""
    if match := re.fullmatch(r"\[(.*)\](?::(\d+))?", text) or re.fullmatch(r"([^:]*):(\d+)", text):
        host, port = match[1], int(match[2] or 53)
    else:
        host, port = text, 53
    try:
        if not 0 < port < 65536:
            raise ValueError
        return str(ip_address(host)), port
    except ValueError:
        raise AppSwitchError(
            "bad-upstream", f"{text!r} is not the address of a name server", "for example 10.0.0.1 or [fd00::1]:5353"
        ) from None
