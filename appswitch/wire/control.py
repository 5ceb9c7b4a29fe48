"""The control protocol: JSON objects, one a line, on the control socket beside the trap socket.

A request names a call; the answer has either `ok` or `error`. `spawn` is the call that makes an app; it passes sockets
of the app's namespace along (edge/namespaces.py), and the app lives at least as long as its connection.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from errno import errorcode
from typing import Annotated, Any

import msgspec

from appswitch.errors import AppSwitchError
from appswitch.model import DOMAIN, Address, App, AppState, Connection, Event, Health, Kind, Listener, Node, Protocol
from appswitch.wire.addresses import place
from appswitch.wire.records import UNREADABLE

MAX_LINE = 1 << 20  # bytes


class Spawn(msgspec.Struct, tag_field="call", tag="spawn", forbid_unknown_fields=True):
    """Make an app of whoever calls."""

    name: str | None = None
    ip: str | None = None
    tags: list[str] = []
    command: list[str] = []
    exclusive: bool = False
    tcp: bool = False
    netns: bool = True
    uid: int = 0
    """The user that the program will run as."""
    exposes: list[str] = []
    """As `--expose` has it (core/exposing.py)."""
    bypasses: list[str] = []
    """As `--bypass` has it (core/bypass.py)."""
    ticket: str = ""
    """From outside; an app with a namespace of its own needs one."""


class Resume(msgspec.Struct, tag_field="call", tag="resume", forbid_unknown_fields=True):
    """Take back the app of whoever calls: that of its network namespace, else the one that has this token.

    The sockets that go along are those of `spawn`. Like there, the app lives at least as long as the connection.
    """

    token: str = ""


class Ticket(msgspec.Struct, tag_field="call", tag="ticket", forbid_unknown_fields=True):
    """What lets a new namespace become an app, once, while the connection that asked lasts."""


class TakeOver(msgspec.Struct, tag_field="call", tag="take-over", forbid_unknown_fields=True):
    """Hand over what you serve (host/succession.py). The rest: as the caller has it, which must be as ours.

    The answer: `pid`; `made`: paths of sockets that are to be removed in the end. The descriptors of the lock and of
    the sockets go along.
    """

    node: str
    state_dir: str
    state_version: int


class Hello(msgspec.Struct, tag_field="call", tag="hello", forbid_unknown_fields=True):
    """Is anybody there? While the connection lasts, the trap handler doesn't go for want of apps."""


class Ps(msgspec.Struct, tag_field="call", tag="ps", forbid_unknown_fields=True):
    """The apps."""


class Services(msgspec.Struct, tag_field="call", tag="services", forbid_unknown_fields=True):
    """The instances that take connections."""


class Nodes(msgspec.Struct, tag_field="call", tag="nodes", forbid_unknown_fields=True):
    """The hosts. wait: answer once this one and each living one have the same tables; timeout: seconds, null: any."""

    wait: bool = False
    timeout: Annotated[float, msgspec.Meta(ge=0)] | None = None


class Connections(msgspec.Struct, tag_field="call", tag="connections", forbid_unknown_fields=True):
    """The connections that there are."""


class Resolve(msgspec.Struct, tag_field="call", tag="resolve", forbid_unknown_fields=True):
    """What a name stands for."""

    name: str


class Why(msgspec.Struct, tag_field="call", tag="why", forbid_unknown_fields=True):
    """What would a connect of `client` (id, name or IP) to `dest` (`NAME:PORT` or `IP:PORT`) come to?"""

    client: str
    dest: str


class WaitFor(msgspec.Struct, tag_field="call", tag="wait-for", forbid_unknown_fields=True):
    """Answer once every `NAME:PORT` (or `IP:PORT`) is served, or after `timeout` seconds, with those that are not."""

    services: list[str]
    timeout: Annotated[float, msgspec.Meta(ge=0)] | None = None


class Drain(msgspec.Struct, tag_field="call", tag="drain", forbid_unknown_fields=True):
    """Let the apps that `app` (an id, a name or an IP) calls get no new connections; with `undo`, let them again.

    wait: answer once the ones that they have are at an end; timeout: seconds that it may take, null: any.
    """

    app: str
    undo: bool = False
    wait: bool = True
    timeout: Annotated[float, msgspec.Meta(ge=0)] | None = None


class Externals(msgspec.Struct, tag_field="call", tag="externals", forbid_unknown_fields=True):
    """The external servers, a backend each, and what gateways say of them."""


class AddExternal(msgspec.Struct, tag_field="call", tag="external-add", forbid_unknown_fields=True):
    """Register an external server on this node. backends: PORT:HOST:PORT each."""

    name: str
    backends: list[str]
    ip: str | None = None
    tags: list[str] = []


class RemoveExternal(msgspec.Struct, tag_field="call", tag="external-rm", forbid_unknown_fields=True):
    """Forget an external server that is registered on this node."""

    name: str


class Observe(msgspec.Struct, tag_field="call", tag="observe", forbid_unknown_fields=True):
    """The recent events, as one answer; with `follow`, an answer each, and then those to come, until the caller goes.

    kinds: none: all; app: a name, an id or a virtual IP; tail: how many of the recent ones at most.
    """

    follow: bool = False
    kinds: list[Kind] = []
    app: str | None = None
    tail: int | None = None


Question = Hello | Ps | Services | Nodes | Connections | Resolve | Why | WaitFor | Observe | Externals
"""What changes nothing."""

Call = Question | TakeOver | Ticket | Spawn | Resume | Drain | AddExternal | RemoveExternal

_decoder: msgspec.json.Decoder[Call] = msgspec.json.Decoder(Call)


def decode(line: bytes) -> Call:
    """A request. AppSwitchError `bad-request` says what is wrong with it."""
    try:
        return _decoder.decode(line)
    except UNREADABLE as error:
        raise AppSwitchError("bad-request", f"the control request can't be read: {error}") from None


def encode_ok(value: object) -> bytes:
    """A good answer."""
    return msgspec.json.encode({"ok": value}) + b"\n"


def encode_error(error: AppSwitchError) -> bytes:
    """A bad one."""
    body = {"reason": error.reason, "message": error.message, "hint": error.hint}
    return msgspec.json.encode({"error": body}) + b"\n"


def app_row(app: App, state: AppState = AppState.UP) -> dict[str, Any]:
    """A row of `ps`."""
    return {
        "id": app.number,
        "name": app.name,
        "ip": str(app.ip),
        "tags": [f"{key}={value}" for key, value in app.tags],
        "node": app.node,
        "pid": app.pid,
        "netns": app.netns,
        "bypass": [str(each) for each in app.bypasses],
        "state": state.value,
        "command": list(app.command),
    }


def service_row(
    listener: Listener,
    state: AppState = AppState.UP,
    elsewhere: Node | None = None,
    exposed: Iterable[tuple[Address, int]] = (),
) -> dict[str, Any]:
    """A row of `services` (DESIGN section 5). real: what carries a connection to it; medium: how it gets there.

    elsewhere: the node that it is on, where that isn't this one; exposed: where clients outside find it.
    """
    app = listener.app
    medium = "udp" if listener.protocol is Protocol.UDP else "tcp" if app.tcp or elsewhere else "unix"
    if listener.outside is not None:
        real: str | None = f"tcp:{place(*listener.outside)}"
    else:
        real = _at(medium, elsewhere) if elsewhere else f"{medium}:{listener.number}"
    return {
        "name": app.name,
        "ip": str(app.ip),
        "port": listener.port,
        "proto": listener.protocol.value,
        "app": app.number,
        "node": app.node,
        "tags": [f"{key}={value}" for key, value in app.tags],
        "real": real,
        "medium": medium,
        "scope": listener.scope.value,
        "state": state.value,
        "exposed": [place(*each) for each in exposed],
    }


def _at(medium: str, node: Node) -> str | None:
    if node.address is None:
        return None
    return f"{medium}:{place(node.address, node.port)}"


def external_row(listener: Listener, health: dict[str, Health]) -> dict[str, Any]:
    """A row of `external list`: a backend. health: what each gateway that answers says of it."""
    app, (host, port) = listener.app, listener.outside or ("", 0)
    states = {each.state.value for each in health.values()}
    return {
        "name": app.name,
        "ip": str(app.ip),
        "port": listener.port,
        "proto": listener.protocol.value,
        "host": host,
        "host_port": port,
        "backend": place(host, port),
        "node": app.node,
        "tags": [f"{key}={value}" for key, value in app.tags],
        "state": next((each for each in ("up", "down") if each in states), "unknown"),
        "health": [
            {"gateway": name, "state": each.state.value, "reason": each.reason} for name, each in health.items()
        ],
    }


def drain_row(app: App, state: AppState, connections: int) -> dict[str, Any]:
    """What `drain` tells of an app. connections: how many others have to it still."""
    row = {"app": app.number, "name": app.name, "ip": str(app.ip)}
    return {**row, "state": state.value, "connections": connections}


def connection_row(connection: Connection) -> dict[str, Any]:
    """A row of `connections`. null: not known, or of no app (model.Connection)."""
    client, server = connection.client, connection.server
    source, dest = connection.source or (None, None), connection.dest or (None, None)
    return {
        "client_app": client and client.number,
        "client_node": client and client.node,
        "client_name": client and client.name,
        "client_ip": None if source[0] is None else str(source[0]),
        "client_port": source[1],
        "dest_ip": None if dest[0] is None else str(dest[0]),
        "dest_port": dest[1],
        "server_app": server and server.number,
        "server_node": server and server.node,
        "server_name": server and server.name,
        "listener": connection.listener and connection.listener.number,
        "proto": connection.proto,
        "medium": connection.medium,
        "state": connection.state.value,
        "node": connection.node,
        "inodes": list(connection.inodes),
    }


def node_row(node: Node, seq: int | None = None, agreed: float | None = None) -> dict[str, Any]:
    """A row of `nodes`. seq: of its table as it is here; agreed: when that was last all of it (seconds since 1970)."""
    return {
        "name": node.name,
        "state": node.state.value,
        "gateway": node.gateway,
        "address": node.address,
        "port": node.port,
        "seq": seq,
        "agreed": agreed and datetime.fromtimestamp(agreed, UTC).isoformat(timespec="milliseconds"),
    }


def resolve_row(name: str, ip: str, instances: int) -> dict[str, Any]:
    """A row of `resolve`."""
    return {"name": name, "fqdn": f"{name}.{DOMAIN}", "ip": ip, "instances": instances}


def event_row(event: Event) -> dict[str, Any]:
    """A line of `observe`. app, name, ip: who did it; address and port: as asked for; command: of a new app."""
    app, server = event.app, event.server
    return {
        "time": datetime.fromtimestamp(event.time, UTC).isoformat(timespec="microseconds"),
        "kind": event.kind.value,
        "node": event.node,
        "app": app and app.number,
        "app_node": app and app.node,
        "name": app and app.name,
        "ip": app and str(app.ip),
        "server_app": server and server.number,
        "server_node": server and server.node,
        "server_name": server and server.name,
        "server_ip": server and str(server.ip),
        "source": event.source and place(*event.source),
        "address": event.address and str(event.address),
        "port": event.port,
        "proto": event.proto,
        "medium": event.medium,
        "rule": event.rule,
        "reason": event.reason,
        "errno": event.error and errorcode.get(event.error, str(event.error)),
        "query": event.query,
        "qtype": event.qtype,
        "answer": list(event.answer),
        "count": event.count,
        "pid": app and app.pid if event.kind is Kind.APP else None,
        "command": list(app.command) if app and event.kind is Kind.APP else [],
    }
