"""Records and deltas: what is said is what is heard, and nothing else is."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from appswitch.errors import AppSwitchError
from appswitch.model import App, AppRecord, Delta, Expose, Exposure, GatewayRecord, ListenerRecord, Protocol
from appswitch.wire import records

TEXT = st.text(st.characters(codec="utf-8"), max_size=30)
IPS = st.builds(IPv4Address, st.integers(0, 2**32 - 1)) | st.builds(IPv6Address, st.integers(0, 2**128 - 1))
PORTS = st.integers(1, 65535)
EXPOSES = st.builds(Expose, PORTS, st.none() | PORTS, st.none() | TEXT, st.booleans())
APPS = st.builds(
    App,
    id=st.integers(0, 10**9 - 1),
    ip=IPS,
    node=st.just("b"),
    name=st.none() | TEXT,
    tags=st.lists(st.tuples(TEXT, TEXT), max_size=4).map(tuple),
    pid=st.integers(0, 2**22),
    uid=st.just(0),
    command=st.lists(st.text(st.characters(codec="utf-8"), max_size=5), max_size=5).map(tuple),
    netns=st.booleans(),
    exclusive=st.booleans(),
    tcp=st.booleans(),
    started=st.floats(0, 2**40),
    derived=st.booleans(),
    external=st.booleans(),
    exposes=st.lists(EXPOSES, max_size=3).map(tuple),
)
LISTENERS = st.builds(
    ListenerRecord,
    st.integers(0, 10**16 - 1),
    st.sampled_from([4, 6]),
    IPS,
    st.integers(1, 65535),
    st.booleans(),
    st.sampled_from(Protocol),
    st.none() | st.tuples(TEXT, PORTS),
)
GATEWAYS = st.builds(
    GatewayRecord,
    st.builds(Exposure, IPS, PORTS, st.none() | PORTS),
    st.lists(st.tuples(IPS, PORTS), max_size=3).map(tuple),
    st.none() | TEXT,
)
CHANGES = st.lists(st.tuples(st.sampled_from(["1", "2", "1/5"]), st.none() | st.binary(max_size=60)), max_size=30)


@given(APPS, st.booleans())
def test_apps(app: App, draining: bool) -> None:
    said = AppRecord(app, draining)
    assert records.decode("b", str(app.id), records.encode(said)) == said


@given(LISTENERS)
def test_listeners(said: ListenerRecord) -> None:
    assert records.decode("b", f"3/{said.number}", records.encode(said)) == said


@given(GATEWAYS)
def test_gateways(said: GatewayRecord) -> None:
    assert records.decode("b", "g7", records.encode(said)) == said


def test_a_long_command_is_cut() -> None:
    """A delta has to fit an event; who wants to see all of it asks the app's own node."""
    app = App(1, ip_address("10.1.1.1"), "b", command=("java", "-cp", "x" * 4000, "Main"))
    heard = records.decode("b", "1", records.encode(AppRecord(app)))
    assert isinstance(heard, AppRecord)
    assert heard.app.command[:2] == ("java", "-cp")
    assert heard.app.command[2].endswith("x…")
    assert sum(len(word) for word in heard.app.command) <= records.COMMAND
    many = records.decode("b", "1", records.encode(AppRecord(evolve(app, command=("ab",) * 100))))
    assert isinstance(many, AppRecord)
    assert many.app.command[-1] == "…"


def test_what_an_app_costs() -> None:
    """An event takes some 480 bytes; an app and its listener should fit."""
    tags = (("grp", "backend"), ("weight", "3"))
    app = App(7, ip_address("10.1.1.1"), "b", "web", tags, 12345, command=("nginx", "-g", "daemon off;"), started=1e9)
    listener = ListenerRecord(9, 4, app.ip, 80)
    assert len(records.encode(AppRecord(app))) < 100
    assert len(records.encode(listener)) < 16


@pytest.mark.parametrize("key", ["", "a", "-1", "01", "1/", "/1", "1/2/3", "1/x", "\u0661", "1\n", "9" * 30])
def test_a_key_that_is_none(key: str) -> None:
    with pytest.raises(AppSwitchError) as caught:
        records.check_key(key)
    assert caught.value.reason == "bad-record"


@given(st.sampled_from(["1", "1/2", "g1"]), st.binary(max_size=80))
def test_arbitrary_values(key: str, value: bytes) -> None:
    try:
        records.decode("b", key, value)
    except AppSwitchError as error:
        assert error.reason == "bad-record"  # noqa: PT017 - either outcome is fine


@pytest.mark.parametrize("key", ["g", "g01", "g-1", "g1/2", "G1", "g9999999999"])
def test_a_key_of_no_gateway(key: str) -> None:
    with pytest.raises(AppSwitchError, match="no key"):
        records.decode("b", key, records.encode(GatewayRecord(Exposure(IPv4Address(1), 80))))


@pytest.mark.parametrize("family", [0, 5])
def test_a_listener_of_no_family(family: int) -> None:
    with pytest.raises(AppSwitchError, match="no IP version"):
        records.decode("b", "1/2", records.encode(ListenerRecord(2, family, IPv4Address(1), 80)))


@pytest.mark.parametrize("ip", [b"", b"12345", b"1" * 17])
def test_an_address_of_no_length(ip: bytes) -> None:
    value = records._encoder.encode(records._Listener(4, ip, 80, 0))
    with pytest.raises(AppSwitchError):
        records.decode("b", "1/2", value)


@given(CHANGES, st.integers(0, 2**63), st.integers(0, 2**63), st.none() | st.integers(0, 2**64 - 1), st.booleans())
def test_deltas(
    changes: list[tuple[str, bytes | None]], incarnation: int, after: int, digest: int | None, whole: bool
) -> None:
    said = Delta("b", incarnation, after, after + len(changes), digest, tuple(changes), whole)
    assert records.decode_delta(records.encode_delta(said)) == said


@given(st.binary(max_size=200))
def test_arbitrary_deltas(data: bytes) -> None:
    with pytest.raises(AppSwitchError):
        records.decode_delta(data)


def test_a_delta_that_leaves_changes_out() -> None:
    with pytest.raises(AppSwitchError, match="1 changes of 5"):
        records.decode_delta(records.encode_delta(Delta("b", 1, 0, 5, 0, (("1", None),))))


@given(CHANGES, st.integers(100, 500), st.integers(0, 2**63), st.integers(0, 2**64 - 1))
def test_pieces(changes: list[tuple[str, bytes | None]], room: int, after: int, digest: int) -> None:
    """One after the other they are the delta; the digest is that of the last one."""
    said = Delta("b" * 20, 1 << 40, after, after + len(changes), digest, tuple(changes))
    cut = records.pieces(said, room)
    if cut is None:
        assert len(records.encode_delta(said)) > room
        return
    assert all(len(piece) <= room for piece in cut)
    heard = [records.decode_delta(piece) for piece in cut]
    assert sum((piece.changes for piece in heard), ()) == said.changes
    assert [piece.after for piece in heard] == [after, *(piece.seq for piece in heard[:-1])]
    assert (heard[-1].seq, heard[-1].digest) == (said.seq, digest)
    assert all(piece.digest is None for piece in heard[:-1])


def test_when_a_pull_is_better() -> None:
    large = Delta("b", 1, 0, 1, 0, (("1", b"x" * 500),))
    assert records.pieces(large, 480) is None
    many = Delta("b", 1, 0, 100, 0, (("1", b"x" * 100),) * 100)
    assert records.pieces(many, 480) is None
    assert records.pieces(Delta("b", 1, 0, 0, 0, (), whole=True), 480) is None
