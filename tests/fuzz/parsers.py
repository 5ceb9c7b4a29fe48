"""The parsers in Python that meet bytes of others: what each is fed with, and by what it may refuse it.

Each input is followed, now and then, by one that is good: a parser that was upset by what came before shows it there.
What hypothesis can say of the structure of their input is in the tests of each (tests/wire and so on).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import dns.message
import msgspec
import trio
import trio.testing
from appswitch._lanes import ffi as lanes_ffi
from appswitch._wire import ffi, lib
from attrs import frozen

from appswitch.compose import dotenv, meaning, requests
from appswitch.compose.document import Document
from appswitch.core import bypass, exposing, external, http_access, limits, membership, names, policy_file
from appswitch.edge import http
from appswitch.errors import AppSwitchError
from appswitch.host import cluster_key, elf, resolv_conf
from appswitch.host.held import Held
from appswitch.model import (
    Address,
    App,
    AppRecord,
    Delta,
    Expose,
    Exposure,
    GatewayRecord,
    ListenerRecord,
    Protocol,
    Summary,
)
from appswitch.wire import (
    control,
    externals,
    flow,
    inet_diag,
    journal,
    lanes,
    netlink,
    peer,
    peer_channel,
    records,
    relay,
    serf,
    socknames,
    tags,
    tcp_diag,
    trap,
    unix_diag,
)
from appswitch.wire import dns as wire_dns
from appswitch.wire.addresses import pack_ip
from appswitch.wire.peer_channel import PeerError

HERE = Path(__file__).parents[2]
NOTHING: tuple[type[Exception], ...] = ()


@frozen
class Parser:
    """name: of the row in docs/reliability.md; seeds: inputs that are good, the first one is tried again and again;
    read: has it parsed, and raises nothing but `refusals`; what it returns for an input doesn't depend on others;
    hostile: inputs that once were too much.
    """

    name: str
    seeds: tuple[bytes, ...]
    read: Callable[[bytes], object]
    refusals: tuple[type[Exception], ...] = NOTHING
    hostile: tuple[bytes, ...] = ()

    def feed(self, data: bytes) -> object:
        """None: it is refused. Whatever else is raised is a bug."""
        try:
            return self.read(data)
        except self.refusals:
            return None


# --- programs, and the trap handler

_ADDRESSES: list[tuple[Address, int]] = [(IPv4Address("10.1.2.3"), 80), (IPv6Address("fd00::1"), 443)]


def _trap_frames() -> Iterator[bytes]:
    for op in [*range(1, 10), *range(16, 20)]:
        for text in (b"", b"web.appswitch.local", b"APPSWITCH_NAME=web\0APPSWITCH_TAGS=a=b,c=d\0"):
            request = ffi.new("struct as_request *", {"magic": lib.AS_MAGIC, "op": op, "flags": lib.AS_BOUND})
            request.text_size = len(text)
            for addr, (ip, port) in zip((request.local, request.remote), _ADDRESSES, strict=True):
                addr.family, addr.port = ip.version, port
                ffi.memmove(addr.ip, pack_ip(ip), 16)
            yield bytes(ffi.buffer(request, trap.HEADER)) + text


def _name(data: bytes) -> object:
    client = socknames.read_client_name(data)
    return client, socknames.read_listener_path(data)


def _names() -> Iterator[bytes]:
    for ip, port in _ADDRESSES:
        yield socknames.client_name(7, (ip, port), (ip, port), 4, 6, 9)
    listener = ffi.new("struct as_listener_name *", {"port": 80, "family": 4})
    yield b"/run/appswitch/as." + bytes(ffi.buffer(listener)).hex().encode() + b"\0"


# --- other hosts

_KEY = bytes(range(32))
_SESSION = peer_channel.Session(_KEY)
_NONCE = bytes(16)
_PLACE = bytes(16)
_REQUESTS: list[peer.Request] = [
    peer.Announce(1, 2, _PLACE, 3, _PLACE, 80, 4),
    peer.Leave(1, _PLACE, 80, ("a.example", "b.example"), external=True),
    peer.LookUp(b"x" * 40, udp=True),
    peer.OpenFlow(2**64 - 1, 1, _PLACE, 3, 2, _PLACE, 80),
    peer.OpenLane(1, 6),
    peer.OpenOutside(7, 1, _PLACE, 3, _PLACE, 80, ("a.example",)),
    peer.OpenPorts(3),
    peer.Pull(Summary(1, 2, 3)),
    peer.Status(Summary(1, 2, 2**64 - 1)),
    peer.AskHealths(),
]
_ANSWERS: list[peer.Answer] = [
    peer.Announced(7), peer.FlowOpened(), peer.LaneOpened(7), peer.LookedUp(b"x"), peer.PortsOpened([b"x", b""]),
    peer.Pulled(b"x"), peer.Status(Summary(1, 2, 3)), peer.Refused(111, "nobody listens"), peer.Healths([]),
]  # fmt: skip


def _opening(data: bytes) -> object:
    """As whoever accepts reads it, and as whoever opens; neither has the key."""
    opener = peer_channel.Opener(_KEY, "a", "b", _NONCE)
    acceptor = peer_channel.Acceptor(_KEY, "b", _NONCE)
    welcome, _ = acceptor.welcome(opener.hello)
    proof, session = opener.prove(welcome)
    for attempt in (
        lambda: len(data) < peer_channel.HEAD_SIZE or peer_channel.rest_of(data[: peer_channel.HEAD_SIZE]),
        lambda: peer_channel.Acceptor(_KEY, "b", _NONCE).welcome(data),
        lambda: acceptor.check(data),
        lambda: opener.prove(data),
        lambda: peer_channel.check_arrival(session, data),
        lambda: peer_channel.arrival_number(data),
    ):
        with contextlib.suppress(PeerError):
            attempt()
    return acceptor.check(proof)


def _openings() -> Iterator[bytes]:
    opener = peer_channel.Opener(_KEY, "a", "b", _NONCE)
    yield opener.hello
    acceptor = peer_channel.Acceptor(_KEY, "b", _NONCE)
    welcome, _ = acceptor.welcome(opener.hello)
    yield welcome
    yield opener.prove(welcome)[0]
    yield peer_channel.arrival(_SESSION, 7)


def _sealed(data: bytes) -> object:
    """What a stranger says in the middle of a channel."""
    return list(peer_channel.Unsealer(_KEY, peer_channel.MOST_ASKED).bodies(data))


def _told_by_a_peer(data: bytes) -> object:
    """What a host that has the key says, the one that asks and the one that answers."""
    (body,) = peer_channel.Unsealer(_KEY).bodies(peer_channel.Sealer(_KEY).seal(data))
    found: list[object] = []
    for decode in (peer.decode_ask, peer.decode_reply):
        with contextlib.suppress(ValueError):
            found.append(decode(body))
    return found


def _frames() -> Iterator[bytes]:
    for number, request in enumerate(_REQUESTS):
        yield peer_channel.Sealer(_KEY).seal(peer.encode(peer.Ask(number, request)))


def _record(data: bytes) -> object:
    """What is understood can be said again, and means the same."""
    found: list[object] = []
    for key in ("1", "1/2", "g1"):
        with contextlib.suppress(AppSwitchError):
            record = records.decode("b", key, data)
            found.append(record)
            records.encode(record)
    return [repr(each) for each in found]


def _records() -> Iterator[bytes]:
    app = App(1, IPv4Address("10.0.0.1"), "b", "web", (("grp", "1"),), command=("nginx",), exposes=(Expose(80),))
    yield records.encode(AppRecord(app, draining=False))
    yield records.encode(ListenerRecord(2, 4, IPv4Address("10.0.0.1"), 80, False, Protocol.TCP, None))
    places = ((IPv4Address("192.0.2.1"), 80),)
    yield records.encode(GatewayRecord(Exposure(IPv4Address("10.0.0.1"), 80, 8080), places, None))


def _deltas() -> Iterator[bytes]:
    yield records.encode_delta(Delta("b", 1, 2, 4, 9, (("1", b"x"), ("1/2", None)), False))
    yield records.encode_delta(Delta("b", 1, 0, 9, None, (), True))


def _packet(data: bytes) -> object:
    """A datagram at the port of flows, of a stranger; and one that a host with the key has sealed."""
    packet, session = memoryview(data), flow.Session(_KEY, 7, 0)
    if flow.read_head(packet) is None:
        return None
    unknown = flow.answer_unknown(_KEY, packet)
    if unknown is not None and len(unknown) > len(data):
        raise AssertionError("an answer that is longer than what it answers")
    said = session.open(packet)
    room = memoryview(bytearray(len(data) + flow.OVERHEAD))
    room[flow.DATA_AT : flow.DATA_AT + len(data)] = data
    other = flow.Session(_KEY, 7, 1).seal(room, len(data), data[0] & 0x7F)  # type: ignore[arg-type]
    kind = session.open(other)
    return said, kind, kind is not None and bytes(flow.data_of(other)) == data


def _tags(data: bytes) -> object:
    """As `tags`, and as whose node it is."""
    found = serf.decode(data, dict[str, str])
    member = membership.parse_member("n~5", "10.0.0.1", 7946, "alive", found)
    return member, tags.decode(found)


# --- Serf, DNS


def _rpc(data: bytes) -> object:
    """A stream, in pieces; each object as each of what it may be."""
    objects, where = serf.Objects(), 0
    found: list[bytes] = []
    while where < len(data):
        size = 1 + data[where] % 64
        found += objects.feed(data[where : where + size])
        where += size
    for each in found:
        for kind in (serf.Header, serf.Members, serf.Joined, serf.Coordinate, serf.StreamRecord):
            with contextlib.suppress(ValueError):
                _use(serf.decode(each, kind))
    return found


def _use(said: object) -> None:
    if isinstance(said, serf.Members):
        for each in said.members or ():
            membership.parse_member(each.name, str(each.address), each.port, each.status, each.tags or {})
    if isinstance(said, serf.StreamRecord):
        serf.raw_bytes(said.payload)
    if isinstance(said, serf.Coordinate):
        said.coord.distance(said.coord)


def _rpcs() -> Iterator[bytes]:
    pack = msgspec.msgpack.encode
    member = {"Name": "a~5", "Addr": bytes([10, 0, 0, 1]), "Port": 7946, "Status": "alive",
              "Tags": {"v": "2", "p": "7", "claim": "5"}}  # fmt: skip
    yield pack({"Seq": 1, "Error": ""}) + pack({"Members": [member, member]})
    yield pack({"Seq": 2, "Error": "no"}) + pack({"Num": 3})
    yield pack({"Seq": 3, "Error": ""}) + pack({"Event": "user", "Name": "d", "Payload": b"\0\xff" * 9})
    coordinate = {"Vec": [0.1] * 8, "Error": 1.5, "Adjustment": 0.1, "Height": 1e-5}
    yield pack({"Seq": 4, "Error": ""}) + pack({"Coord": coordinate, "Ok": True})


_ZONE = wire_dns.Zone(
    "appswitch.local",
    lambda name: IPv4Address("100.64.0.1") if name == "web" else IPv6Address("fd00::2") if name == "db" else None,
    lambda ip: ("web",) if str(ip) == "100.64.0.1" else (),
    lambda ip: str(ip).startswith("100.64."),
    ("corp.example",),
    lambda _ip: [("tcp", 80), ("udp", 53)],
    lambda service, _proto: 80 if service == "http" else None,
)


def _query(data: bytes) -> object:
    """What a program asks, by UDP and by TCP; where it isn't ours, nobody may answer."""
    said = []
    for udp in (True, False):
        with contextlib.suppress(wire_dns.NotAQuery):
            reply = wire_dns.answer(data, _ZONE, udp)
            said.append(wire_dns.server_failure(data) if reply is None else reply)
            wire_dns.describe(said[-1])
    return said


def _queries() -> Iterator[bytes]:
    for name in ("web", "db.appswitch.local", "_http._tcp.web", "www.example.com", "1.0.64.100.in-addr.arpa"):
        for kind in ("A", "AAAA", "SRV", "PTR", "ANY"):
            yield dns.message.make_query(name, kind, use_edns=kind == "A", id=7).to_wire()


_ASKED = dns.message.make_query("a.example", "A", id=7)


def _reply(data: bytes) -> object:
    """What an upstream server says."""
    return wire_dns.found(_ASKED.to_wire(), data), wire_dns.describe(data)


def _replies() -> Iterator[bytes]:
    for records_ in (
        ["a.example. 60 IN A 192.0.2.1"],
        ["a.example. 5 IN CNAME b.example.", "b.example. 9 IN A 1.2.3.4"],
    ):
        reply = dns.message.make_response(_ASKED)
        for name, ttl, *rest in (each.split(maxsplit=4) for each in records_):
            reply.answer.append(dns.rrset.from_text(name, int(ttl), *rest))
        yield reply.to_wire()


# --- the kernel


def _diag(data: bytes) -> object:
    """A datagram of netlink's, as each of what it may be."""
    said: list[object] = []
    for message in netlink.messages(data):
        netlink.error_of(message)
        for decode in (unix_diag.decode, inet_diag.decode, inet_diag.decode_placed, tcp_diag.decode):
            with contextlib.suppress(ValueError):
                said.append(decode(message.body))
        with contextlib.suppress(ValueError):
            said.append(tcp_diag.decode_client(message.body, range(65536)))
    return said


def _diags() -> Iterator[bytes]:
    attributes = b"".join(bytes([8, 0, kind, 0, 1, 2, 3, 4]) for kind in range(8))
    for size in (16, 72):
        for family in (1, 2, 10):
            yield netlink.request(20, 1, bytes([family, 1, 1, 0]) + bytes(size - 4) + attributes)


def _of_processes(data: bytes) -> object:
    """What our own helpers say: they are trusted, but may end in the middle."""
    said: list[object] = []
    decoders: list[Callable[[bytes], object]] = [relay.decode_tally, lanes.decode_report, Held.unpack]
    for decode in decoders:
        with contextlib.suppress(ValueError):
            said.append(decode(data))
    return said


def _helpers() -> Iterator[bytes]:
    yield bytes(lanes_ffi.buffer(lanes_ffi.new("struct as_door_report *", {"word": 3, "door": 5})))
    yield bytes(lanes_ffi.buffer(lanes_ffi.new("struct as_door_report *", {"word": 1, "count": 1}))) + bytes(80)
    yield bytes(ffi.buffer(ffi.new("struct as_tally *", {"pid": 5})))
    yield Held(bytes(4), 5, bytes(4), 6).pack()


# --- people: what they write, and their files

_CALLS = (
    b'{"call":"ps"}', b'{"call":"nodes","wait":true,"timeout":1.5}', b'{"call":"why","client":"a","dest":"b:1"}',
    b'{"call":"spawn","name":"web","ip":"10.0.0.1","tags":["a=b"],"command":["x"],"exposes":["80"],"bypasses":["::/0"]}',
    b'{"call":"external-add","name":"db","backends":["5432:db.example:5432"]}', b'{"call":"observe","kinds":["app"]}',
)  # fmt: skip
_COMPOSE_CALLS = (b'{"call":"ps"}', b'{"call":"up","project":"{}"}', b'{"call":"down"}')


def _words(data: bytes) -> object:
    """Each as each argument that the command line and the control socket take."""
    text = data.decode(errors="surrogateescape")
    said: list[object] = []
    readers: list[Callable[[str], object]] = [
        names.check_name, names.check_ip, names.check_host, names.check_tag, exposing.parse_expose, bypass.parse_bypass,
        http_access.parse_place, lambda text: limits.parse_limits([text]), lambda text: external.read("x", [text]),
        lambda text: external.read(text, ["1:a:1"]), lambda text: http_access.is_own_name(text),
    ]  # fmt: skip
    for read in readers:
        with contextlib.suppress(AppSwitchError):
            said.append(read(text))
    return said


_WORDS = tuple(
    text.encode()
    for text in ("web-1", "10.0.0.1", "fd00::1", "k=v", "80:8080@gw", "80/proxy", "10.0.0.0/8", "[fd00::1]:443",
                 "*.corp.example:443,8000-8999", "127.0.0.1:8080", "[::1]:0", "5432:db.example:5432", "localhost:80",
                 "web=10/s", "connections=5")
)  # fmt: skip


@contextlib.contextmanager
def _file(data: bytes) -> Iterator[Path]:
    """That can be executed, too."""
    fd = os.memfd_create("input")
    try:
        os.write(fd, data)
        yield Path(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def _key(data: bytes) -> object:
    with _file(data) as path:
        return cluster_key.read_key(path)[0]


def _program(data: bytes) -> object:
    with _file(data) as path:
        found = elf.find_obstacle(str(path))
        return found and found.reason


def _resolv(data: bytes) -> object:
    with _file(data) as path:
        return resolv_conf.read(path)


def _nothing(path: Path) -> str:
    raise FileNotFoundError(2, "No such file or directory", str(path))


def _compose(data: bytes) -> object:
    document = Document("c.yaml", data.decode(errors="replace"), {"X": "1", "EMPTY": ""})
    return repr(meaning.understand(document, lambda name: name or "p", Path("/nowhere"), {"X": "1"}, _nothing))


def _dotenv(data: bytes) -> object:
    return dotenv.parse(data.decode(errors="replace"), {"X": "1"})


_DOTENV = (b"A=1\nB='x y'\nC=\"${A:-z}\\n\"\n# no\nexport D=$X ${E-f}\nF\n", b"A=${X:?must}\n")
_HEAD = b'{"is":"head","version":1,"boot":"b","salt":7,"last_app":3}\n'
_JOURNAL = (
    _HEAD + b'{"is":"app","id":1,"ip":"10.0.0.1","name":"web","tags":[["a","b"]],"netns":5,'
    b'"exposes":[[80,null,null,false]],"bypasses":[["10.0.0.0/8",[[1,2]]]]}\n'
    b'{"is":"receiver","id":2,"app":1,"family":4,"ip":"10.0.0.1","port":53}\n'
    b'{"is":"gone","receiver":2}\n{"is":"gone","app":1}\n',
)  # fmt: skip
_EXTERNALS = (b'{"version":1,"externals":[{"name":"db","backends":["1:a:2"],"ip":null,"tags":["a=b"],"started":1.5}]}',)


def _policies() -> Iterator[bytes]:
    yield (HERE / "examples" / "gateway" / "policy.toml").read_bytes()
    yield b'default = "deny"\n[[rule]]\nname = "a"\naction = "deny"\nfrom = {name = "w*", tags = ["a=b"]}\n'
    yield b'[[rule]]\naction = "allow"\n[rule.to]\nport = ["1-2", 5]\nproto = ["tcp"]\nnode = ["n?"]\n'


async def _answer_http(request: http.Request) -> http.Response:
    return http.Response(200, repr(sorted(request.query.items())).encode())


def _http(data: bytes) -> object:
    """What is answered until the client has said all that it says."""

    async def main() -> bytes:
        ours, theirs = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(http.HttpServer(_answer_http).serve_connection, ours)
            await theirs.send_all(data)
            await theirs.send_eof()
            said = b""
            while more := await theirs.receive_some():
                said += more
        return said

    said: bytes = trio.run(main)
    if said and not said.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 4", b"HTTP/1.1 501 ")):
        raise AssertionError(said)
    return [line for line in said.split(b"\r\n") if not line.startswith(b"Date:")]


_HTTP = (
    b"GET /map?a=b&c=%20 HTTP/1.1\r\nHost: localhost\r\nCookie: t=1\r\n\r\n",
    b"HEAD / HTTP/1.0\r\n\r\n", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
    b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
)  # fmt: skip


def _compose_files() -> Iterator[bytes]:
    for name in ("guestbook", "voting"):
        yield (HERE / "examples" / name / "compose.yaml").read_bytes()
    yield b"""
services:
  a: &a
    command: [x, '${X:-y}']
    environment: {A: 1}
    depends_on: {b: {condition: service_started}}
  b:
    <<: *a
    depends_on: []
    healthcheck: {test: [CMD, 'true'], interval: 1s}
    ports: ['80:80']
"""


_DEEP = b"[" * 4000
_PROGRAM = Path("/bin/true").read_bytes()[:2048]

PARSERS = [
    Parser("trap frames", tuple(_trap_frames()), trap.decode, (trap.FrameError,)),
    Parser("names of sockets", tuple(_names()), _name),
    Parser("peer openings", tuple(_openings()), _opening),
    Parser("peer frames of a stranger", tuple(_frames()), _sealed, (PeerError,)),
    Parser(
        "peer messages",
        tuple(peer.encode(peer.Ask(1, each)) for each in _REQUESTS)
        + tuple(peer.encode(peer.Reply(1, each)) for each in _ANSWERS),
        _told_by_a_peer,
    ),
    Parser("records of other hosts", tuple(_records()), _record),
    Parser("deltas of other hosts", tuple(_deltas()), records.decode_delta, (AppSwitchError,)),
    Parser("UDP packets of other hosts", (bytes([0x80]) + bytes(40), b"\3" + bytes(32)), _packet),
    Parser("tags of Serf members", (msgspec.msgpack.encode({"v": "2", "p": "7", "i": "1", "s": "2", "d": "ff"}),),
           _tags, (ValueError,)),
    Parser("Serf's RPC", tuple(_rpcs()), _rpc, (ValueError,)),
    Parser("DNS queries", tuple(_queries()), _query),
    Parser("DNS replies", tuple(_replies()), _reply),
    Parser("netlink", tuple(_diags()), _diag, (ValueError,),
           (netlink.request(20, 1, bytes([1, 1, 1, 0]) + bytes(12) + b"\x08\0\0\0abcd\x06\0\3\0ab\0\0"),)),
    Parser("helpers' answers", tuple(_helpers()), _of_processes),
    Parser("control requests", _CALLS, control.decode, (AppSwitchError,),
           (b'{"x":' + _DEEP, b'{"call":"why","client":"\xff"}')),
    Parser("compose requests", _COMPOSE_CALLS, requests.decode, (AppSwitchError,), (b'{"x":' + _DEEP,)),
    Parser("arguments", _WORDS, _words),
    Parser("policy files", tuple(_policies()), lambda data: policy_file.parse(data, "f"), (AppSwitchError,),
           (b"default = " + b"1" * 5000, b"a = " + _DEEP)),
    Parser("compose files", tuple(_compose_files()), _compose, (AppSwitchError,),
           (b"a: " + b"${A:-" * 2000, b"a: " + _DEEP, b"a: " + b"1" * 5000)),
    Parser("dotenv files", _DOTENV, _dotenv, (dotenv.DotenvError,), (b"A=" + b"${A:-" * 2000, b"A=1\r2\n")),
    Parser("journal", _JOURNAL, lambda data: journal.read(data, "n"), (journal.JournalError,),
           (_HEAD + b'{"is":"app","x":' + _DEEP + b"\n",)),
    Parser("externals.json", _EXTERNALS, externals.decode, (ValueError,), (b'{"version":' + _DEEP,)),
    Parser("cluster key", (b"A" * 43 + b"=\n",), _key, (AppSwitchError,)),
    Parser("programs (ELF)", (_PROGRAM, b"#!/usr/bin/env -S sh\n"), _program,
           hostile=(_PROGRAM[:32] + b"\xff" * 8 + _PROGRAM[40:],)),
    Parser("resolv.conf", (b"nameserver 10.0.0.1\nsearch a.example b.\n",), _resolv),
    Parser("HTTP", _HTTP, _http),
]  # fmt: skip


def named(name: str) -> Parser:
    return next(each for each in PARSERS if each.name == name)
