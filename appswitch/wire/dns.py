"""DNS questions to answers, without I/O (RFC 1035; dnspython parses and builds the messages).

What is ours: names of apps, bare and under appswitch.local, `localhost` (RFC 6761 6.3), and the reverse names of
virtual IPs. A bare name that no app has is ours to deny, too: it means nothing outside this network. The rest is for
upstream.

SRV (RFC 2782): a name's are all ports that are served there; `_5432._tcp.NAME` and `_postgresql._tcp.NAME` ask for one.
Instances share an address, and the choice among them is made at each connect: so there is one record a port.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.reversename
import dns.rrset
from attrs import frozen

from appswitch.model import Address

TTL = 5  # seconds; an app's address can change hands
NEGATIVE_TTL = 1  # seconds; an app that is waited for may come any time
UDP_SIZE = 512  # bytes that a client takes without EDNS (RFC 1035 4.2.1)

_LOCALHOST: dict[str, tuple[Address, ...]] = {"localhost": (IPv4Address("127.0.0.1"), IPv6Address("::1"))}
_ARPA = (dns.name.from_text("in-addr.arpa."), dns.name.from_text("ip6.arpa."))
_SERVICE = re.compile(r"_(?P<service>[a-z0-9-]+)\._(?P<proto>tcp|udp)\.(?P<name>.+)")
_ADDRESS_TYPES = (dns.rdatatype.A, dns.rdatatype.AAAA, dns.rdatatype.PTR, dns.rdatatype.SRV, dns.rdatatype.ANY)


@frozen
class Zone:
    """What the built-in server knows. domain: ours; search: suffixes that the host's resolver tries on bare names.

    resolve: name -> address; names_of: address -> names; owns: whether an address is a virtual IP;
    ports: address -> (protocol, port) of each service there; port_of: service, protocol -> port (services(5)), or None.
    """

    domain: str
    resolve: Callable[[str], Address | None]
    names_of: Callable[[Address], Sequence[str]]
    owns: Callable[[Address], bool]
    search: tuple[str, ...] = ()
    ports: Callable[[Address], Sequence[tuple[str, int]]] = lambda _: ()
    port_of: Callable[[str, str], int | None] = lambda *_: None


class NotAQuery(Exception):  # noqa: N818 - a verdict, not a fault of ours
    """Bytes that no answer is due to."""


def answer(query: bytes, zone: Zone, udp: bool) -> bytes | None:
    """The answer in wire format; None: ask upstream. NotAQuery: drop it."""
    try:
        message = dns.message.from_wire(query, ignore_trailing=True)
    except dns.message.ShortHeader:
        raise NotAQuery from None
    except (dns.exception.DNSException, ValueError):
        return _format_error(query)
    if message.flags & dns.flags.QR:
        raise NotAQuery
    reply = dns.message.make_response(message, recursion_available=True)
    if message.opcode() != dns.opcode.QUERY or len(message.question) != 1:
        reply.set_rcode(dns.rcode.NOTIMP if message.opcode() != dns.opcode.QUERY else dns.rcode.FORMERR)
        return reply.to_wire()
    question = message.question[0]
    if question.rdclass != dns.rdataclass.IN:
        return None
    if not _fill(reply, question, zone):
        return None
    size = max(UDP_SIZE, message.payload if message.edns >= 0 else 0) if udp else 65535
    return reply.to_wire(max_size=size, prefer_truncation=True)  # TC; but additional records are left out silently


def server_failure(query: bytes) -> bytes:
    """What a client gets when no upstream answers."""
    reply = dns.message.make_response(dns.message.from_wire(query, ignore_trailing=True), recursion_available=True)
    reply.set_rcode(dns.rcode.SERVFAIL)
    return reply.to_wire()


def describe(reply: bytes) -> dict[str, Any]:
    """An answer as facts of an event (model.Event); the reason says why there is none."""
    try:
        message = dns.message.from_wire(reply, ignore_trailing=True)
        question = message.question[0]
        answer = tuple(rdata.to_text() for rrset in message.answer for rdata in rrset)
    except (dns.exception.DNSException, ValueError, IndexError):
        return {"reason": "FORMERR"}
    facts = {"query": question.name.to_text(omit_final_dot=True), "qtype": dns.rdatatype.to_text(question.rdtype)}
    reason: str | None = None
    if message.rcode() != dns.rcode.NOERROR:
        reason = dns.rcode.to_text(message.rcode())
    elif message.flags & dns.flags.TC:
        reason = "truncated"
    elif not answer:
        reason = "NODATA"
    return {**facts, "answer": answer, "reason": reason}


def questions(name: str) -> list[bytes]:
    """For the addresses that a name stands for, IPv4 and IPv6. ValueError when it can't be one."""
    kinds = (dns.rdatatype.A, dns.rdatatype.AAAA)
    try:
        return [dns.message.make_query(name, each).to_wire() for each in kinds]
    except dns.exception.DNSException as error:
        raise ValueError(str(error)) from None


@frozen
class Found:
    """That a name stands for addresses. ttl: seconds."""

    name: str
    addresses: tuple[Address, ...]
    ttl: float


def found(query: bytes, reply: bytes) -> Found | None:
    """What upstream's reply to the query says about addresses; None: nothing. The name is the one that was asked for,
    whatever other names it leads to.
    """
    try:
        asked = dns.message.from_wire(query, ignore_trailing=True).question
        message = dns.message.from_wire(reply, ignore_trailing=True)
        if not isinstance(message, dns.message.QueryMessage) or message.question != asked or len(asked) != 1:
            return None
        chain = message.resolve_chaining()
    except (dns.exception.DNSException, ValueError):
        return None
    name = asked[0].name.to_text(omit_final_dot=True).lower()
    kind = asked[0].rdclass, asked[0].rdtype
    if kind not in ((dns.rdataclass.IN, dns.rdatatype.A), (dns.rdataclass.IN, dns.rdatatype.AAAA)):
        return None
    if chain.answer is None or "\\" in name:  # a label with a dot in it could make it look like another name
        return None
    return Found(name, tuple(ip_address(each.address) for each in chain.answer), chain.minimum_ttl)


def _format_error(query: bytes) -> bytes:
    if query[2] & 0x80:
        raise NotAQuery
    reply = dns.message.Message(id=int.from_bytes(query[:2], "big"))
    reply.flags |= dns.flags.QR
    reply.set_rcode(dns.rcode.FORMERR)
    return reply.to_wire()


def _fill(reply: dns.message.Message, question: dns.rrset.RRset, zone: Zone) -> bool:
    """Answers what is ours; False: it isn't."""
    name, rdtype = question.name, question.rdtype
    text = name.to_text(omit_final_dot=True).lower()
    if text.endswith((".in-addr.arpa", ".ip6.arpa")):
        return _fill_reverse(reply, name, rdtype, zone)
    if not (_fill_name(reply, text, zone) or _fill_service(reply, text, zone)):
        bare = "." not in text and rdtype in _ADDRESS_TYPES
        if not (bare or text == zone.domain or text.endswith("." + zone.domain)):
            return False
        if text != zone.domain:
            reply.set_rcode(dns.rcode.NXDOMAIN)
    _settle(reply, zone)
    return True


def _fill_name(reply: dns.message.Message, text: str, zone: Zone) -> bool:
    """A name of an app. Without a record of this type it is NODATA, never NXDOMAIN (musl would give up)."""
    known = _LOCALHOST.get(text)
    if known is None:
        app = _app_name(text, zone)
        ip = zone.resolve(app) if app is not None else None
        if app is None or ip is None:
            return False
        known = (ip,)
        if reply.question[0].rdtype in (dns.rdatatype.SRV, dns.rdatatype.ANY):
            _add_services(reply, app, ip, zone.ports(ip), zone)
    for address in known:
        kind = dns.rdatatype.A if address.version == 4 else dns.rdatatype.AAAA
        if reply.question[0].rdtype in (kind, dns.rdatatype.ANY):
            _add(reply.answer, reply.question[0].name, kind, str(address))
    return True


def _fill_service(reply: dns.message.Message, text: str, zone: Zone) -> bool:
    """One service of an app, `_SERVICE._PROTO.NAME`."""
    match = _SERVICE.fullmatch(text)
    app = _app_name(match["name"], zone) if match else None
    ip = zone.resolve(app) if app is not None else None
    if match is None or app is None or ip is None:
        return False
    service, proto = match["service"], match["proto"]
    port = int(service) if service.isdecimal() else zone.port_of(service, proto)
    found = [each for each in zone.ports(ip) if each == (proto, port)]
    if not found:
        reply.set_rcode(dns.rcode.NXDOMAIN)
    elif reply.question[0].rdtype in (dns.rdatatype.SRV, dns.rdatatype.ANY):
        _add_services(reply, app, ip, found, zone)
    return True


def _app_name(text: str, zone: Zone) -> str | None:
    """The app's name that `text` is, as it is or under one of the suffixes."""
    for suffix in ("", zone.domain, *zone.search):
        if not suffix or text.endswith("." + suffix):
            name = text.removesuffix("." + suffix) if suffix else text
            if zone.resolve(name) is not None:
                return name
    return None


def _add_services(
    reply: dns.message.Message, app: str, ip: Address, ports: Sequence[tuple[str, int]], zone: Zone
) -> None:
    target = dns.name.from_text(f"{app}.{zone.domain}.")
    for _, port in ports:
        _add(reply.answer, reply.question[0].name, dns.rdatatype.SRV, f"0 1 {port} {target}")
    if ports:
        kind = dns.rdatatype.A if ip.version == 4 else dns.rdatatype.AAAA
        _add(reply.additional, target, kind, str(ip))


def _settle(reply: dns.message.Message, zone: Zone) -> None:
    """We are the authority; where there is no answer, the SOA says how long that holds (RFC 2308 3 and 5)."""
    reply.flags |= dns.flags.AA
    question = reply.question[0]
    apex = dns.name.from_text(f"{zone.domain}.")
    soa = f"ns.{apex} hostmaster.{apex} 1 3600 600 86400 {NEGATIVE_TTL}"
    if question.name == apex and question.rdtype in (dns.rdatatype.SOA, dns.rdatatype.ANY):
        _add(reply.answer, apex, dns.rdatatype.SOA, soa, NEGATIVE_TTL)
    elif not reply.answer:
        owner = next(parent for parent in (apex, *_ARPA, dns.name.root) if question.name.is_subdomain(parent))
        _add(reply.authority, owner, dns.rdatatype.SOA, soa, NEGATIVE_TTL)


def _fill_reverse(reply: dns.message.Message, name: dns.name.Name, rdtype: dns.rdatatype.RdataType, zone: Zone) -> bool:
    try:
        address = ip_address(dns.reversename.to_address(name))
    except (dns.exception.DNSException, ValueError):
        return False
    if address.is_loopback:
        targets = ["localhost."]
    elif zone.owns(address):
        targets = [f"{each}.{zone.domain}." for each in zone.names_of(address)]
    else:
        return False
    if not targets:
        reply.set_rcode(dns.rcode.NXDOMAIN)
    elif rdtype in (dns.rdatatype.PTR, dns.rdatatype.ANY):
        for target in targets:
            _add(reply.answer, name, dns.rdatatype.PTR, target)
    _settle(reply, zone)
    return True


def _add(
    section: list[dns.rrset.RRset], name: dns.name.Name, rdtype: dns.rdatatype.RdataType, text: str, ttl: int = TTL
) -> None:
    rdata = dns.rdata.from_text(dns.rdataclass.IN, rdtype, text)
    for rrset in section:
        if rrset.match(name, dns.rdataclass.IN, rdtype, dns.rdatatype.NONE):
            rrset.add(rdata, ttl)
            return
    section.append(dns.rrset.from_rdata(name, ttl, rdata))
