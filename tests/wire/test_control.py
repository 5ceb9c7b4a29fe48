"""The control protocol's requests and rows."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv6Address

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from appswitch.errors import AppSwitchError
from appswitch.model import (
    Address,
    App,
    AppState,
    Connection,
    Event,
    Health,
    HealthState,
    Kind,
    Listener,
    Node,
    NodeState,
    Protocol,
    State,
)
from appswitch.wire import control

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
KNOWN = ["spawn", "ticket", "ps", "services", "nodes", "resolve", "wait-for"]


def decode(**request: object) -> control.Call:
    return control.decode(json.dumps(request).encode() + b"\n")


def test_calls() -> None:
    assert decode(call="ps") == control.Ps()
    assert decode(call="resolve", name="web") == control.Resolve("web")
    assert decode(call="wait-for", services=["db:5432"]) == control.WaitFor(["db:5432"])
    spawn = decode(call="spawn", name="web", tags=["grp=1"], command=["a", "b"], netns=False, uid=5)
    assert spawn == control.Spawn(name="web", tags=["grp=1"], command=["a", "b"], netns=False, uid=5)


@pytest.mark.parametrize(
    "line",
    [
        b"", b"\n", b"{}\n", b"[]\n", b"null\n", b"{\n", b'{"call": "ps"\n', b'{"call": 5}\n', b'{"call": "no-such"}\n',
        b'{"call": "ps", "more": 1}\n', b'{"call": "resolve"}\n', b'{"call": "resolve", "name": null}\n',
        b'{"call": "spawn", "tags": "grp=1"}\n', b'{"call": "wait-for", "services": [1]}\n', b"\xff\xfe\n",
        b'{"call": "ps"}\n{"call": "ps"}\n', b"[" * 100000,
    ],
)  # fmt: skip
def test_malformed(line: bytes) -> None:
    with pytest.raises(AppSwitchError) as error:
        control.decode(line)
    assert error.value.reason == "bad-request"


@given(st.binary(max_size=200) | st.dictionaries(st.text(), JSON).map(lambda value: json.dumps(value).encode()))
def test_arbitrary_lines(line: bytes) -> None:
    with pytest.raises(AppSwitchError):
        control.decode(line)


@given(st.sampled_from(KNOWN), st.dictionaries(st.sampled_from(["name", "ip", "tags", "netns", "services", "x"]), JSON))
def test_known_calls_with_arbitrary_arguments(call: str, arguments: dict[str, object]) -> None:
    try:
        decode(**arguments, call=call)
    except AppSwitchError as error:
        assert error.reason == "bad-request"  # noqa: PT017 - either outcome is fine


@given(JSON)
def test_good_answers_are_one_line(value: object) -> None:
    line = control.encode_ok(value)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert json.loads(line) == {"ok": value}


@given(st.text(), st.text(), st.text())
def test_bad_answers_are_one_line(reason: str, message: str, hint: str) -> None:
    line = control.encode_error(AppSwitchError(reason, message, hint))
    assert line.count(b"\n") == 1
    assert json.loads(line) == {"error": {"reason": reason, "message": message, "hint": hint}}


APP = App(id=3, ip=IPv4Address("10.1.1.1"), node="n1", name="web", tags=(("grp", "1"), ("grp", "2")), command=("a",))
LISTENER = Listener(id=9, app=APP, family=4, ip=APP.ip, port=80, listening=True)


def test_rows_of_services_have_the_fields_of_the_contract() -> None:
    row = control.service_row(LISTENER)
    wanted = {"name", "ip", "port", "proto", "app", "node", "tags", "real", "medium", "scope", "state", "exposed"}
    assert set(row) == wanted
    del row["real"]
    assert row == {
        "name": "web", "ip": "10.1.1.1", "port": 80, "proto": "tcp", "app": 3, "node": "n1", "tags": ["grp=1", "grp=2"],
        "medium": "unix", "scope": "public", "state": "up", "exposed": [],
    }  # fmt: skip
    places: list[tuple[Address, int]] = [(IPv4Address("192.0.2.1"), 8080), (IPv6Address("2001:db8::1"), 8080)]
    assert control.service_row(LISTENER, exposed=places)["exposed"] == ["192.0.2.1:8080", "[2001:db8::1]:8080"]
    private = control.service_row(Listener(id=9, app=APP, family=4, ip=IPv4Address("127.0.0.1"), port=80))
    assert (private["scope"], private["ip"]) == ("app", "10.1.1.1")
    client = evolve(APP, name=None, ip=IPv4Address("169.254.1.3"))
    unreachable = control.service_row(Listener(id=9, app=client, family=4, ip=IPv4Address("0.0.0.0"), port=80))
    assert unreachable["scope"] == "app", "nobody reaches what a client only serves"


def test_rows_of_udp_services() -> None:
    listener = Listener(id=9, app=APP, family=4, ip=APP.ip, port=53, listening=True, protocol=Protocol.UDP)
    row = control.service_row(listener)
    assert (row["proto"], row["medium"], row["real"]) == ("udp", "udp", "udp:9")


def test_rows_of_external_servers() -> None:
    """As services, and as `external list` has them."""
    backend = evolve(LISTENER, app=evolve(APP, tcp=True, external=True), outside=("2001:db8::1", 8080))
    row = control.service_row(backend, elsewhere=Node("b", address="10.0.0.2", port=7947))
    assert (row["real"], row["medium"], row["scope"]) == ("tcp:[2001:db8::1]:8080", "tcp", "public")
    up, down = Health(HealthState.UP, 7.0), Health(HealthState.DOWN, 7.0, "Connection refused")
    assert control.external_row(backend, {"g1": up, "g2": down}) == {
        "name": "web", "ip": "10.1.1.1", "port": 80, "proto": "tcp", "host": "2001:db8::1", "host_port": 8080,
        "backend": "[2001:db8::1]:8080", "node": "n1", "tags": ["grp=1", "grp=2"], "state": "up",
        "health": [
            {"gateway": "g1", "state": "up", "reason": None},
            {"gateway": "g2", "state": "down", "reason": "Connection refused"},
        ],
    }  # fmt: skip
    states = [control.external_row(backend, each)["state"] for each in ({"g2": down}, {"g1": Health()}, {})]
    assert states == ["down", "unknown", "unknown"]


def test_rows_of_what_is_on_another_node() -> None:
    app = evolve(APP, id=1 << 31, number=3, node="b")
    listener = evolve(LISTENER, app=app)
    assert control.app_row(app, AppState.SUSPECT)["id"] == 3
    row = control.service_row(listener, AppState.SUSPECT, Node("b", address="10.0.0.2", port=7947))
    assert (row["app"], row["node"], row["real"], row["medium"]) == (3, "b", "tcp:10.0.0.2:7947", "tcp")
    assert row["state"] == "suspect"
    udp = evolve(listener, protocol=Protocol.UDP)
    assert control.service_row(udp, elsewhere=Node("b", address="fd00::2", port=1))["real"] == "udp:[fd00::2]:1"
    assert control.service_row(listener, elsewhere=Node("b"))["real"] is None
    connection = Connection(app, None, None, app, evolve(listener, id=7, number=9), "n1", State.ESTABLISHED)
    row = control.connection_row(connection)
    assert (row["client_app"], row["client_node"], row["server_app"], row["server_node"]) == (3, "b", 3, "b")
    assert row["listener"] == 9
    row = control.event_row(Event(0, Kind.CONNECT, "n1", APP, app))
    assert (row["app"], row["app_node"], row["server_app"], row["server_node"]) == (3, "n1", 3, "b")


def test_rows_of_connections() -> None:
    outside = Connection(APP, (APP.ip, 4000), (IPv4Address("1.1.1.1"), 80), None, None, "n1", State.ESTABLISHED)
    assert control.connection_row(outside) == {
        "client_app": 3, "client_node": "n1", "client_name": "web", "client_ip": "10.1.1.1", "client_port": 4000,
        "dest_ip": "1.1.1.1", "dest_port": 80, "server_app": None, "server_node": None, "server_name": None,
        "listener": None, "proto": "tcp", "medium": "unix", "state": "established", "node": "n1", "inodes": [0, 0],
    }  # fmt: skip
    closing = control.connection_row(Connection(None, None, None, APP, LISTENER, "n1", State.CLOSING, inodes=(0, 5)))
    assert (closing["client_app"], closing["client_ip"], closing["client_port"]) == (None, None, None)
    assert (closing["server_app"], closing["server_name"], closing["listener"]) == (3, "web", 9)


def test_other_rows() -> None:
    assert control.app_row(APP)["tags"] == ["grp=1", "grp=2"]
    row = {"name": "n1", "state": "alive", "gateway": True, "address": None, "port": None, "seq": None, "agreed": None}
    assert control.node_row(Node("n1", gateway=True)) == row
    known = control.node_row(Node("n2", NodeState.SUSPECT, address="10.0.0.2", port=7947), 3, 1.5)
    assert (known["state"], known["address"], known["port"], known["seq"]) == ("suspect", "10.0.0.2", 7947, 3)
    assert known["agreed"] == "1970-01-01T00:00:01.500+00:00"
    row = control.resolve_row("web", "10.1.1.1", 2)
    assert row == {"name": "web", "fqdn": "web.appswitch.local", "ip": "10.1.1.1", "instances": 2}
