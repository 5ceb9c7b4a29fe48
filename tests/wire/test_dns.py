"""DNS answers: what is ours to say, and that nothing sent to us can break it."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import dns.edns
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.reversename
import dns.rrset
import dns.update
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from appswitch.model import Address
from appswitch.wire.dns import NEGATIVE_TTL, Found, NotAQuery, Zone, answer, found, questions, server_failure

APPS: dict[str, Address] = {
    "web": IPv4Address("10.1.1.1"),
    "db.prod": IPv4Address("100.64.0.1"),
    "six": IPv6Address("fd00::1"),
}
PORTS = {
    APPS["db.prod"]: [("tcp", 5432), ("tcp", 8080), ("udp", 53)],
    APPS["six"]: [("tcp", port) for port in range(1, 200)],
}
MANY = IPv4Address("10.1.1.99")


def names_of(ip: Address) -> list[str]:
    return [f"instance-{number}" for number in range(100)] if ip == MANY else [n for n, i in APPS.items() if i == ip]


ZONE = Zone(
    domain="appswitch.local",
    resolve=APPS.get,
    names_of=names_of,
    owns=lambda ip: ip in APPS.values() or ip in (MANY, IPv4Address("10.1.1.50")),
    search=("corp.example",),
    ports=lambda ip: PORTS.get(ip, []),
    port_of=lambda service, proto: {("postgresql", "tcp"): 5432, ("domain", "udp"): 53}.get((service, proto)),
)


def ask(name: str, rdtype: str = "A", *, udp: bool = True, **options: object) -> dns.message.Message | None:
    """The answer, or None when it is upstream's."""
    query = dns.message.make_query(name, rdtype, **options)  # type: ignore[arg-type]
    data = answer(query.to_wire(), ZONE, udp)
    if data is None:
        return None
    reply = dns.message.from_wire(data)
    assert query.is_response(reply)
    assert reply.flags & dns.flags.RA
    return reply


def ours(name: str, rdtype: str = "A", **options: object) -> dns.message.Message:
    reply = ask(name, rdtype, **options)  # type: ignore[arg-type]
    assert reply is not None
    assert reply.flags & dns.flags.AA
    return reply


def records(reply: dns.message.Message) -> list[str]:
    return [record.to_text() for rrset in reply.answer for record in rrset]


@pytest.mark.parametrize(
    "name",
    ["web", "web.", "WEB", "web.appswitch.local", "Web.AppSwitch.Local.", "web.corp.example"],
)
def test_a_name_of_an_app(name: str) -> None:
    reply = ours(name)
    assert records(reply) == ["10.1.1.1"]
    assert reply.answer[0].name == reply.question[0].name
    assert 0 < reply.answer[0].ttl <= 60  # the address can change hands


def test_names_with_dots_and_ipv6() -> None:
    assert records(ours("db.prod")) == ["100.64.0.1"]
    assert records(ours("db.prod.appswitch.local")) == ["100.64.0.1"]
    assert records(ours("six", "AAAA")) == ["fd00::1"]


@pytest.mark.parametrize(
    ("name", "rdtype"), [("web", "AAAA"), ("six", "A"), ("web", "MX"), ("web", "TXT"), ("web", "SRV")]
)
def test_a_type_that_a_name_has_not_is_nodata(name: str, rdtype: str) -> None:
    """Never NXDOMAIN: musl would give up on the name, whatever the A record says."""
    reply = ours(name, rdtype)
    assert reply.rcode() == dns.rcode.NOERROR
    assert not reply.answer


@pytest.mark.parametrize(
    "name", ["nothing", "nothing.appswitch.local", "a.b.appswitch.local", "web.web.appswitch.local"]
)
def test_names_that_no_app_has_are_ours_to_deny(name: str) -> None:
    assert ours(name).rcode() == dns.rcode.NXDOMAIN


@pytest.mark.parametrize(
    "name", ["example.com", "web.example.com", "appswitch.local.example", "xappswitch.local", "nothing.corp.example"]
)
def test_the_rest_is_upstreams(name: str) -> None:
    for rdtype in ("A", "AAAA", "MX"):
        assert ask(name, rdtype) is None


def test_the_root_and_top_level_domains_are_upstreams() -> None:
    assert ask(".", "NS") is None
    assert ask("com", "NS") is None


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST."])
def test_localhost(name: str) -> None:
    """RFC 6761 6.3."""
    assert records(ours(name)) == ["127.0.0.1"]
    assert records(ours(name, "AAAA")) == ["::1"]


@pytest.mark.parametrize("name", ["db.prod", "db.prod.appswitch.local", "DB.prod.corp.example"])
def test_services_of_a_name(name: str) -> None:
    reply = ours(name, "SRV")
    assert set(records(reply)) == {f"0 1 {port} db.prod.appswitch.local." for port in (5432, 8080, 53)}
    (target,) = reply.additional
    assert target.to_text() == f"db.prod.appswitch.local. {reply.answer[0].ttl} IN A 100.64.0.1"
    assert not reply.authority


@pytest.mark.parametrize(
    ("name", "port"),
    [("_5432._tcp.db.prod", 5432), ("_PostgreSQL._TCP.db.prod.appswitch.local", 5432), ("_domain._udp.db.prod", 53),
     ("_8080._tcp.db.prod.corp.example", 8080)],
)  # fmt: skip
def test_one_service(name: str, port: int) -> None:
    reply = ours(name, "SRV")
    assert records(reply) == [f"0 1 {port} db.prod.appswitch.local."]
    assert reply.additional
    nodata = ours(name, "A")
    assert (nodata.rcode(), nodata.answer) == (dns.rcode.NOERROR, [])


@pytest.mark.parametrize("name", ["_81._tcp.db.prod", "_domain._tcp.db.prod", "_no-such._tcp.db.prod", "_1._tcp.web"])
def test_a_service_that_is_not_there(name: str) -> None:
    assert ours(name, "SRV").rcode() == dns.rcode.NXDOMAIN


def test_services_of_names_that_no_app_has() -> None:
    assert ours("_1._tcp.nothing.appswitch.local", "SRV").rcode() == dns.rcode.NXDOMAIN
    assert ask("_ldap._tcp.example.com", "SRV") is None
    assert ask("_1._sctp.web", "SRV") is None


def test_many_services_are_truncated_and_additional_records_are_not_worth_it() -> None:
    short = ours("six", "SRV")
    assert short.flags & dns.flags.TC
    assert not short.answer
    whole = ours("six", "SRV", udp=False)
    assert len(records(whole)) == 199
    assert whole.additional[0][0].to_text() == "fd00::1"
    size = len(answer(dns.message.make_query("six", "SRV").to_wire(), ZONE, udp=False) or b"")
    tight = ours("six", "SRV", use_edns=0, payload=size + 11 - 1)
    assert len(records(tight)) == 199
    assert not tight.additional
    assert not tight.flags & dns.flags.TC


@pytest.mark.parametrize(
    ("name", "rdtype", "owner"),
    [
        ("nothing.appswitch.local", "A", "appswitch.local."),
        ("web.appswitch.local", "AAAA", "appswitch.local."),
        ("appswitch.local", "A", "appswitch.local."),
        ("_1._tcp.web.appswitch.local", "SRV", "appswitch.local."),
        ("nothing", "A", "."),
        ("web", "AAAA", "."),
        ("50.1.1.10.in-addr.arpa", "PTR", "in-addr.arpa."),
        ("1.1.1.10.in-addr.arpa", "A", "in-addr.arpa."),
    ],
)
def test_what_is_not_there_may_be_remembered_for_a_while(name: str, rdtype: str, owner: str) -> None:
    """RFC 2308 5: the SOA's TTL and its last field; without it, a resolver asks each time."""
    (soa,) = ours(name, rdtype).authority
    assert (soa.name.to_text(), soa.ttl, soa[0].minimum) == (owner, NEGATIVE_TTL, NEGATIVE_TTL)


def test_the_apex() -> None:
    (soa,) = ours("appswitch.local", "SOA").answer
    assert soa[0].rname.to_text() == "hostmaster.appswitch.local."
    assert not ours("web").authority


def test_any() -> None:
    assert records(ours("web", "ANY")) == ["10.1.1.1"]


def test_reverse_names() -> None:
    def reverse(ip: str) -> str:
        return dns.reversename.from_address(ip).to_text()

    assert records(ours(reverse("10.1.1.1"), "PTR")) == ["web.appswitch.local."]
    assert records(ours(reverse("fd00::1"), "PTR")) == ["six.appswitch.local."]
    assert records(ours(reverse("127.0.0.1"), "PTR")) == ["localhost."]
    assert records(ours(reverse("::1"), "PTR")) == ["localhost."]
    assert ours(reverse("10.1.1.50"), "PTR").rcode() == dns.rcode.NXDOMAIN  # an app without a name
    assert ask(reverse("192.0.2.1"), "PTR") is None
    assert ask("1.10.in-addr.arpa", "PTR") is None
    assert ask("in-addr.arpa", "PTR") is None


def test_an_answer_too_long_for_a_datagram_is_truncated() -> None:
    """RFC 1035 4.2.1, RFC 6891 6.2.3: the client asks again over TCP."""
    name = dns.reversename.from_address(str(MANY)).to_text()
    query = dns.message.make_query(name, "PTR")
    data = answer(query.to_wire(), ZONE, udp=True)
    assert data is not None
    assert len(data) <= 512
    assert dns.message.from_wire(data).flags & dns.flags.TC
    whole = ask(name, "PTR", udp=False)
    assert whole is not None
    assert len(records(whole)) == 100
    assert not whole.flags & dns.flags.TC
    roomy = ask(name, "PTR", use_edns=0, payload=4096)
    assert roomy is not None
    assert len(records(roomy)) == 100


@pytest.mark.parametrize("payload", [0, 1, 511, 512, 1232])
def test_edns_payloads(payload: int) -> None:
    query = dns.message.make_query("web", "A", use_edns=0, payload=payload)
    data = answer(query.to_wire(), ZONE, udp=True)
    assert data is not None
    reply = dns.message.from_wire(data)
    assert records(reply) == ["10.1.1.1"]
    assert reply.edns == 0


def test_classes_other_than_in_are_upstreams() -> None:
    query = dns.message.make_query("version.bind", "TXT", rdclass=dns.rdataclass.CH)
    assert answer(query.to_wire(), ZONE, udp=True) is None


def test_answers_are_not_answered() -> None:
    reply = dns.message.make_response(dns.message.make_query("web", "A"))
    with pytest.raises(NotAQuery):
        answer(reply.to_wire(), ZONE, udp=True)


@pytest.mark.parametrize("opcode", [dns.opcode.IQUERY, dns.opcode.STATUS, dns.opcode.NOTIFY])
def test_other_opcodes_are_not_implemented(opcode: dns.opcode.Opcode) -> None:
    query = dns.message.make_query("web", "A")
    query.set_opcode(opcode)
    data = answer(query.to_wire(), ZONE, udp=True)
    assert data is not None
    assert dns.message.from_wire(data).rcode() == dns.rcode.NOTIMP


def test_updates_are_not_implemented() -> None:
    update = dns.update.UpdateMessage("appswitch.local")
    update.add("evil", 60, "A", "10.6.6.6")
    data = answer(update.to_wire(), ZONE, udp=True)
    assert data is not None
    reply = dns.message.from_wire(data)
    assert reply.rcode() == dns.rcode.NOTIMP
    assert reply.id == update.id


def test_two_questions_and_none_are_format_errors() -> None:
    head = b"\x12\x34\x01\x00"
    for count in (0, 2):
        data = head + count.to_bytes(2, "big") + bytes(6) + b"\x03web\x00\x00\x01\x00\x01" * count
        reply = answer(data, ZONE, udp=True)
        assert reply is not None
        assert reply[:2] == b"\x12\x34"
        assert reply[3] & 15 == dns.rcode.FORMERR


WEB = dns.message.make_query("web", "A").to_wire()


@given(st.binary(max_size=600), st.booleans())
@example(b"", True)
@example(WEB[:12], True)
@example(WEB[:-1], True)
@example(WEB + b"trailing", True)
@example(WEB[:4] + b"\0\1\0\0\0\0\0\1" + WEB[12:] + b"\0" * 11, True)
def test_arbitrary_bytes(data: bytes, udp: bool) -> None:
    check_any(data, udp)


@given(
    st.integers(0, 15), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.binary(max_size=200), st.booleans()
)
def test_a_head_and_arbitrary_bytes(opcode: int, count: int, answers: int, more: int, rest: bytes, udp: bool) -> None:
    head = b"\x12\x34" + bytes([opcode << 3, 0, 0, count, 0, answers, 0, 0, 0, more])
    check_any(head + rest, udp)


@given(st.data())
def test_a_query_with_a_few_bytes_changed(data: st.DataObject) -> None:
    query = bytearray(
        dns.message.make_query("web.appswitch.local", "A", use_edns=0, payload=1232, want_dnssec=True).to_wire()
    )
    for _ in range(data.draw(st.integers(1, 5))):
        query[data.draw(st.integers(0, len(query) - 1))] = data.draw(st.integers(0, 255))
    check_any(bytes(query), udp=data.draw(st.booleans()))


@given(st.lists(st.binary(min_size=1, max_size=63), max_size=5), st.sampled_from([1, 12, 28, 33, 255, 65535]))
def test_a_name_of_any_bytes(labels: list[bytes], rdtype: int) -> None:
    """RFC 2181 11: labels may hold any octets."""
    name = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    check_any(WEB[:12] + name + rdtype.to_bytes(2, "big") + b"\0\1", udp=True)


def check_any(data: bytes, udp: bool) -> None:
    """An answer, None, or NotAQuery: nothing else."""
    try:
        reply = answer(data, ZONE, udp)
    except NotAQuery:
        return
    if reply is None:
        reply = server_failure(data)
    assert len(reply) >= 12
    assert reply[:2] == data[:2]
    assert reply[2] & 0x80


def test_server_failure() -> None:
    query = dns.message.make_query("example.com", "AAAA", use_edns=0)
    reply = dns.message.from_wire(server_failure(query.to_wire()))
    assert query.is_response(reply)
    assert reply.rcode() == dns.rcode.SERVFAIL


def test_every_private_reverse_name_parses() -> None:
    for ip in ("10.1.1.1", "0.0.0.0", "255.255.255.255", "::", "::ffff:10.1.1.1"):
        name = dns.reversename.from_address(ip).to_text() if ip_address(ip).version == 4 else "1." * 32 + "ip6.arpa"
        check_any(dns.message.make_query(name, dns.rdatatype.PTR).to_wire(), udp=True)


# --- what upstream's answers say of addresses


def told(
    question: str, *records: str, asked: str | None = None, rcode: dns.rcode.Rcode = dns.rcode.NOERROR
) -> Found | None:
    """question: "NAME TYPE", that upstream answers; asked: what it was asked for; records: "NAME TTL TYPE DATA"."""
    query, other = (
        dns.message.make_query(each.split()[0], each.split()[1], id=7) for each in (asked or question, question)
    )
    reply = dns.message.make_response(other)
    for record in records:
        name, ttl, kind, data = record.split(maxsplit=3)
        reply.answer.append(dns.rrset.from_text(name, int(ttl), "IN", kind, data))
    reply.set_rcode(rcode)
    return found(query.to_wire(), reply.to_wire())


def test_an_answer_is_of_the_name_that_was_asked_for() -> None:
    assert told("Www.Example.com A", "www.example.com. 60 A 192.0.2.1") == Found(
        "www.example.com", (IPv4Address("192.0.2.1"),), 60
    )
    assert told("a.example AAAA", "a.example. 9 AAAA 2001:db8::1") == Found(
        "a.example", (IPv6Address("2001:db8::1"),), 9
    )


def test_through_other_names_for_the_shortest_ttl() -> None:
    chain = "a.example. 60 CNAME b.example.", "b.example. 5 CNAME c.example.", "c.example. 90 A 192.0.2.1"
    assert told("a.example A", *chain) == Found("a.example", (IPv4Address("192.0.2.1"),), 5)


@pytest.mark.parametrize(
    ("question", "records", "asked"),
    [
        ("a.example A", [], None),
        ("a.example A", ["b.example. 60 A 192.0.2.1"], None),  # what was not asked for
        ("b.example A", ["b.example. 60 A 192.0.2.1"], "a.example A"),  # an answer to something else
        ("a.example AAAA", ["a.example. 60 AAAA 2001:db8::1"], "a.example A"),
        ("a.example TXT", ["a.example. 60 TXT 192.0.2.1"], None),
        ("a.example A", ["a.example. 60 AAAA 2001:db8::1"], None),
        ("a.example A", ["a.example. 60 CNAME b.example.", "b.example. 60 CNAME a.example."], None),
        ("a\\.example.com A", ["a\\.example.com. 60 A 192.0.2.1"], None),  # would be taken for a name in example.com
    ],
)
def test_what_says_nothing_of_addresses(question: str, records: list[str], asked: str | None) -> None:
    assert told(question, *records, asked=asked) is None


def test_no_such_name() -> None:
    assert told("a.example A", rcode=dns.rcode.NXDOMAIN) is None
    assert told("a.example A", "a.example. 60 A 192.0.2.1", rcode=dns.rcode.NXDOMAIN) is None


@given(st.binary(max_size=200), st.booleans())
def test_whatever_upstream_says(noise: bytes, starts_well: bool) -> None:
    query = dns.message.make_query("a.example", "A").to_wire()
    reply = query[:2] + b"\x81\x80" + query[4:6] + b"\0\1" + query[8:] + noise if starts_well else noise
    said = found(query, reply)
    assert said is None or (said.name == "a.example" and all(ip.version == 4 for ip in said.addresses))


def test_our_own_questions() -> None:
    kinds = [dns.message.from_wire(each).question[0].to_text() for each in questions("a.example")]
    assert kinds == ["a.example. IN A", "a.example. IN AAAA"]
    with pytest.raises(ValueError, match="label"):
        questions("a" * 64 + ".example")
