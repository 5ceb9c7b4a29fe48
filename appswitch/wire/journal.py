"""What a trap handler leaves to its successor, as JSON objects, one a line (edge/journal.py has the file).

The first line is a Head. After it, a line replaces an earlier one about the same thing, or says that it has gone. The
last line may be cut: its writer was killed.
"""

from __future__ import annotations

from ipaddress import ip_address

import msgspec
from attrs import define, field, frozen

from appswitch.model import App, Bypass, Expose, Listener, Protocol
from appswitch.wire.records import UNREADABLE

VERSION = 1


class Head(msgspec.Struct, tag_field="is", tag="head"):
    """boot: the kernel's id of this boot (random(4)); salt: of our sockets' names; last_app: the greatest id."""

    version: int
    boot: str = ""
    salt: int = 0
    last_app: int = 0


class AppLine(msgspec.Struct, tag_field="is", tag="app"):
    """An app, as model.App. netns: the cookie of its network namespace, or 0 and a token, in hexadecimal."""

    id: int
    ip: str
    name: str | None = None
    tags: list[tuple[str, str]] = []
    pid: int = 0
    uid: int = 0
    command: list[str] = []
    exclusive: bool = False
    tcp: bool = False
    netns: int = 0
    token: str = ""
    draining: bool = False
    started: float = 0.0
    derived: bool = False
    exposes: list[tuple[int, int | None, str | None, bool]] = []
    bypasses: list[tuple[str, list[tuple[int, int]]]] = []


class ReceiverLine(msgspec.Struct, tag_field="is", tag="receiver"):
    """A UDP socket that an app has bound, as model.Listener."""

    id: int
    app: int
    family: int
    ip: str
    port: int
    v6only: bool = False


class GoneLine(msgspec.Struct, tag_field="is", tag="gone"):
    """No longer: the app, with all that it had; or the receiver."""

    app: int = 0
    receiver: int = 0


Line = Head | AppLine | ReceiverLine | GoneLine

_decoder: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)


class JournalError(Exception):
    """What is wrong with it."""


@frozen
class Known:
    """An app and who calls in its name: those of a network namespace, or (netns 0) who shows the token."""

    app: App
    netns: int = 0
    token: bytes = b""
    draining: bool = False


@define
class Past:
    """What a journal tells."""

    head: Head
    apps: dict[int, Known] = field(factory=dict)
    receivers: dict[int, Listener] = field(factory=dict)


def encode(line: Line) -> bytes:
    """One line."""
    return msgspec.json.encode(line) + b"\n"


def app_line(known: Known) -> AppLine:
    """The line of an app."""
    app = known.app
    return AppLine(
        app.id, str(app.ip), app.name, list(app.tags), app.pid, app.uid, list(app.command), app.exclusive, app.tcp,
        known.netns, known.token.hex(), known.draining, app.started, app.derived,
        [(each.port, each.gateway_port, each.gateway, each.proxy) for each in app.exposes],
        [(each.place, list(each.ports)) for each in app.bypasses],
    )  # fmt: skip


def receiver_line(receiver: Listener) -> ReceiverLine:
    """The line of a UDP socket."""
    return ReceiverLine(receiver.id, receiver.app.id, receiver.family, str(receiver.ip), receiver.port, receiver.v6only)


def read(text: bytes, node: str) -> Past:
    """What all lines together come to. node: ours. JournalError says what can't be read."""
    lines = text.split(b"\n")[:-1]
    if not lines:
        raise JournalError("it is empty")
    head = _read_line(lines[0], 1)
    if not isinstance(head, Head):
        raise JournalError("it doesn't begin as a journal does")
    if head.version != VERSION:
        raise JournalError(f"it is of version {head.version}, this is version {VERSION}")
    past = Past(head)
    for number, line in enumerate(lines[1:], 2):
        try:
            _add(past, _read_line(line, number), node)
        except (ValueError, KeyError) as error:
            raise JournalError(f"line {number}: {error}") from None
    return past


def _read_line(line: bytes, number: int) -> Line:
    try:
        return _decoder.decode(line)
    except UNREADABLE as error:
        raise JournalError(f"line {number}: {error}") from None


def _add(past: Past, line: Line, node: str) -> None:
    match line:
        case AppLine():
            past.head.last_app = max(past.head.last_app, line.id)
            past.apps[line.id] = _known(line, node)
        case ReceiverLine():
            past.receivers[line.id] = _receiver(line, past.apps[line.app].app)
        case GoneLine():
            past.apps.pop(line.app, None)
            past.receivers.pop(line.receiver, None)
            for each in [each for each in past.receivers.values() if each.app.id == line.app]:
                del past.receivers[each.id]
        case Head():
            raise ValueError("a second head")


def _known(line: AppLine, node: str) -> Known:
    app = App(
        line.id, ip_address(line.ip), node, line.name, tuple(line.tags), line.pid, line.uid, tuple(line.command),
        bool(line.netns), line.exclusive, line.tcp, line.started, derived=line.derived,
        exposes=tuple(Expose(*each) for each in line.exposes),
        bypasses=tuple(Bypass(place, tuple(ports)) for place, ports in line.bypasses),
    )  # fmt: skip
    return Known(app, line.netns, bytes.fromhex(line.token), line.draining)


def _receiver(line: ReceiverLine, app: App) -> Listener:
    ip = ip_address(line.ip)
    if line.family not in (4, 6) or not 0 < line.port < 65536:
        raise ValueError("no UDP socket is like that")
    return Listener(line.id, app, line.family, ip, line.port, v6only=line.v6only, listening=True, protocol=Protocol.UDP)
