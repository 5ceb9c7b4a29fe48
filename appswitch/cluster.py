"""What makes a host one of several: `serve --bind`, `--join` and `--key-file`, put together.

Two ports: Serf's, for membership and events, and the next one, where the other trap handlers reach ours: channels and
connections by TCP, the datagrams of apps by UDP.
"""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import structlog
import trio
from attrs import define, evolve, frozen

from appswitch.core.names import is_address
from appswitch.core.sync import Copies, Log
from appswitch.edge import peers
from appswitch.edge.apps import Apps
from appswitch.edge.arrivals import Arrivals
from appswitch.edge.deliver import Deliverer
from appswitch.edge.expected import ExpectedConnections
from appswitch.edge.flows import Flows, open_shared
from appswitch.edge.lanes_in import LanesIn
from appswitch.edge.passed import Passed
from appswitch.edge.peers import Peers
from appswitch.edge.policing import Policing
from appswitch.edge.router import Router
from appswitch.edge.serf import PORT, Serf, SerfSettings
from appswitch.errors import AppSwitchError
from appswitch.host.cluster_key import ClusterKey, derive_peer_key, read_key
from appswitch.host.succession import Handed, Successor
from appswitch.model import Node
from appswitch.wire.peer import Announce, OpenLane

Ports = tuple[socket.socket, socket.socket]
"""The peer port: a listening TCP socket, and a UDP socket."""

Place = tuple[str, int]
"""An address or a host's name, and a port."""

LOOK_EVERY = 1.0  # seconds
AGREES_WITHIN = 2.0  # seconds; programs wait a few for a new trap handler (shim/channel.c)

log = structlog.get_logger()


@frozen
class ClusterSettings:
    """bind: our own address, and Serf's port; join: others, with theirs; key: None: none; serf: the program."""

    bind: Place
    join: tuple[Place, ...] = ()
    key: ClusterKey | None = None
    serf: str = "serf"

    @property
    def secret(self) -> bytes:
        """For channels between trap handlers, and datagrams."""
        return self.key.peer if self.key else derive_peer_key(b"")

    @property
    def peer_port(self) -> int:
        """Where the other trap handlers reach ours."""
        return self.bind[1] + 1


def read_settings(bind: str | None, join: tuple[str, ...], key_file: Path | None, serf: str) -> ClusterSettings | None:
    """From the command line; None: a host by itself. AppSwitchError `bad-bind`, `bad-join`, `bad-key`."""
    if bind is None and not join:
        if key_file is not None:
            raise AppSwitchError("bad-key", "--key-file is for several hosts", "give --bind or --join, too")
        return None
    others = tuple(parse_place(text, "bad-join") for text in join)
    own = parse_place(bind, "bad-bind") if bind is not None else (_source_towards(others), PORT)
    try:
        if ip_address(own[0]).is_unspecified:
            raise ValueError
        if ip_address(own[0]).is_loopback and not all(_is_loopback(host) for host, _ in others):
            raise ValueError
    except ValueError:
        raise AppSwitchError("bad-bind", f"{own[0]} is no address that others could reach",
                             "give one of this host's: --bind 10.0.0.1") from None  # fmt: skip
    return ClusterSettings(own, others, _key(key_file), serf)


def _key(file: Path | None) -> ClusterKey | None:
    if file is None:
        log.warning("no --key-file: whoever reaches the ports of this host can be a part of the cluster")
        return None
    key, warning = read_key(file)
    if warning is not None:
        log.warning(warning)
    return key


def parse_place(text: str, reason: str, port: int = PORT) -> Place:
    """`HOST`, `HOST:PORT`, `[V6]` or `[V6]:PORT`; also a bare V6. AppSwitchError `reason` when it is none of them."""
    match = re.fullmatch(r"\[([^]]+)\](?::(\d+))?", text) or re.fullmatch(r"([^:\s]+)(?::(\d+))?", text)
    host, number = (match[1], int(match[2] or port)) if match else (text, port)
    if (match is None and not is_address(text)) or not 0 < number < 65535:  # the next port is ours, too
        raise AppSwitchError(
            reason, f"{text!r} is not HOST[:PORT]", "for example 10.0.0.1, db.example:7946 or [fd00::1]:7946"
        )
    return host, number


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (is_address(host) and ip_address(host).is_loopback)


def _source_towards(others: tuple[Place, ...]) -> str:
    """Our address on the way to the first of them that has one. Waits until there is: a host may just have started."""
    source = _find_source_towards(others)
    if source is None:
        names = " or ".join(host for host, _ in others)
        hint = "until then nothing is served; --bind ADDR gives our own address, and this needs no way"
        log.warning("can't join yet: there is no way to it, or its name isn't known", peer=names, hint=hint)
    while source is None:
        time.sleep(LOOK_EVERY)
        source = _find_source_towards(others)
    return source


def _find_source_towards(others: tuple[Place, ...]) -> str | None:
    for host, port in others:
        with contextlib.suppress(OSError):
            for family, kind, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM):
                with socket.socket(family, kind) as unsent:  # connecting UDP sends nothing, but chooses a route
                    unsent.connect(address)
                    source: str = unsent.getsockname()[0]
                    return source
    return None


@contextlib.contextmanager
def open_ports(settings: ClusterSettings, handed: Handed, successor: Successor) -> Iterator[Ports]:
    """The peer port, TCP and UDP. AppSwitchError `bad-bind` when it can't be had."""
    ip, port = settings.bind[0], settings.peer_port
    names = (ip, port), (peers.for_family(ip, socket.AF_INET6), port)
    tcp = (handed.take(socket.SOCK_STREAM, name) for name in names)
    udp = handed.take(socket.SOCK_DGRAM, (ip, port))
    try:
        with next(filter(None, tcp), None) or peers.listen(ip, port) as listening:
            with udp or open_shared(ip, port) as datagrams:
                successor.offered += [listening.fileno(), datagrams.fileno()]
                yield listening, datagrams
    except OSError as error:
        reason = f"{ip} port {port} can't be used: {error.strerror}"
        raise AppSwitchError("bad-bind", reason, "another program's? --bind ADDR:PORT names another one") from None


@define
class Cluster:
    """Our host as one of several. returns: this node has had an earlier life."""

    serf: Serf
    peers: Peers
    flows: Flows
    router: Router
    arrivals: Arrivals
    expected: ExpectedConnections
    lanes_in: LanesIn
    returns: bool

    async def run(self, ports: Ports, task_status: trio.TaskStatus[None]) -> None:
        """Until it is cancelled; then it takes leave of the others. Started: they can reach it. AppSwitchError."""
        listening, datagrams = ports
        async with trio.open_nursery() as nursery:
            await nursery.start(self.peers.serve, listening)
            await nursery.start(self.flows.run, datagrams)
            await nursery.start(self.serf.run)
            nursery.start_soon(self.router.run)
            nursery.start_soon(self.expected.keep_swept)
            nursery.start_soon(self.lanes_in.run)
            if self.returns:  # programs wait for us: what they ask for first may be on other hosts
                with trio.move_on_after(AGREES_WITHIN):
                    await self.router.until_agreed()
            task_status.started()


def make(
    settings: ClusterSettings,
    node: Node,
    state_dir: Path,
    apps: Apps,
    policing: Policing,
    to_peers: Peers,
    flows: Flows,
    deliverer: Deliverer,
    successor: Successor,
) -> Cluster:
    """Puts it together. node: what is known of this host without a cluster; successor: whoever takes over from us."""
    directory = state_dir / "serf"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    serf_key = settings.key.serf if settings.key else None
    serf = Serf(SerfSettings(node.name, directory, settings.bind, settings.join, serf_key, settings.serf), successor)
    own = evolve(node, address=settings.bind[0], port=settings.peer_port)
    life = state_dir / "life"
    returns = life.exists()
    router = Router(own, apps, Log(node.name, _next_life(life)), Copies(), serf, to_peers)
    expected = ExpectedConnections()
    arrivals = Arrivals(apps, policing, deliverer, expected, router.refresh)
    to_peers.handlers[Announce] = arrivals.announce
    to_peers.arrived = expected.arrived
    passed = Passed(deliverer.names, apps.events)
    lanes_in = LanesIn(apps, policing, arrivals, deliverer.named, to_peers, passed)
    deliverer.names.takers.append(lanes_in.take)
    to_peers.handlers[OpenLane] = lanes_in.open_lane
    return Cluster(serf, to_peers, flows, router, arrivals, expected, lanes_in, returns)


def _next_life(file: Path) -> int:
    """The number of this life of the node: greater than that of each before, also where the clock has gone back."""
    life = time.time_ns() // 1_000_000
    with contextlib.suppress(OSError, ValueError):
        life = max(life, int(file.read_text()) + 1)
    try:
        file.write_text(str(life))
    except OSError as error:
        log.warning("the number of this life can't be kept", file=str(file), reason=error.strerror)
    return life
