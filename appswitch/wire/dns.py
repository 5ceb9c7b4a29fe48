"""DNS questions to answers, without I/O (RFC 1035; dnspython parses and builds the messages).

What is ours: names of apps, bare and under appswitch.local, `localhost` (RFC 6761 6.3), and the reverse names of
virtual IPs. A bare name that no app has is ours to deny, too: it means nothing outside this network. The rest is for
upstream.
"""

from __future__ import annotations

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
UDP_SIZE = 512  # bytes that a client takes without EDNS (RFC 1035 4.2.1)

_LOCALHOST = {"localhost": (IPv4Address("127.0.0.1"), IPv6Address("::1"))}
_ADDRESS_TYPES = (dns.rdatatype.A, dns.rdatatype.AAAA, dns.rdatatype.PTR, dns.rdatatype.SRV, dns.rdatatype.ANY)


@frozen
class Zone:
    """What the built-in server knows. domain: ours; search: suffixes that the host's resolver tries on bare names.

    resolve: name -> address; names_of: address -> names; owns: whether an address is a virtual IP.
    """

    domain: str
    resolve: Callable[[str], Address | None]
    names_of: Callable[[Address], Sequence[str]]
    owns: Callable[[Address], bool]
    search: tuple[str, ...] = ()


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
    try:
        return reply.to_wire(max_size=size)
    except dns.exception.TooBig:
        return _truncated(message).to_wire()


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


def _truncated(message: dns.message.Message) -> dns.message.Message:
    reply = dns.message.make_response(message, recursion_available=True)
    reply.flags |= dns.flags.TC
    return reply


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
    known = _addresses(text, zone)
    if known is None:
        bare = "." not in text and rdtype in _ADDRESS_TYPES
        if bare or text == zone.domain or text.endswith("." + zone.domain):
            reply.flags |= dns.flags.AA
            if text != zone.domain:
                reply.set_rcode(dns.rcode.NXDOMAIN)
            return True
        return False
    reply.flags |= dns.flags.AA
    for address in known:
        kind = dns.rdatatype.A if address.version == 4 else dns.rdatatype.AAAA
        if rdtype in (kind, dns.rdatatype.ANY):
            _add(reply, name, kind, str(address))
    return True  # a name without an address of this type: NODATA, never NXDOMAIN (musl would give up)


def _addresses(text: str, zone: Zone) -> tuple[Address, ...] | None:
    if text in _LOCALHOST:
        return _LOCALHOST[text]
    for suffix in ("", zone.domain, *zone.search):
        if not suffix or text.endswith("." + suffix):
            ip = zone.resolve(text.removesuffix("." + suffix) if suffix else text)
            if ip is not None:
                return (ip,)
    return None


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
    reply.flags |= dns.flags.AA
    if not targets:
        reply.set_rcode(dns.rcode.NXDOMAIN)
    elif rdtype in (dns.rdatatype.PTR, dns.rdatatype.ANY):
        for target in targets:
            _add(reply, name, dns.rdatatype.PTR, target)
    return True


def _add(reply: dns.message.Message, name: dns.name.Name, rdtype: dns.rdatatype.RdataType, text: str) -> None:
    rrset = reply.find_rrset(reply.answer, name, dns.rdataclass.IN, rdtype, create=True)
    rrset.add(dns.rdata.from_text(dns.rdataclass.IN, rdtype, text), TTL)
