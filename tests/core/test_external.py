"""External servers: what people may say of them, and what they are to the table."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appswitch.core import external, names, route
from appswitch.core.balance import Balancer
from appswitch.core.external import Backend, External, may_stand_for, read, register
from appswitch.core.policy import Policy
from appswitch.core.route import Reach
from appswitch.core.service_table import ServiceTable
from appswitch.errors import AppSwitchError
from appswitch.model import App, Listener, ListenerRecord


def test_as_people_say_it() -> None:
    said = read(
        "DB", ["5432:Db.Example.com.:6432", "5432:192.0.2.1:5432/tcp", "53:[2001:DB8::1]:53"], "10.9.9.9", ["grp=1"]
    )
    backends = (Backend(5432, "db.example.com", 6432), Backend(5432, "192.0.2.1", 5432), Backend(53, "2001:db8::1", 53))
    assert said == External("db", backends, ip_address("10.9.9.9"), (("grp", "1"),))
    assert read("db", ["1:a:1", "1:a:1"]) == External("db", (Backend(1, "a", 1),))


@pytest.mark.parametrize(
    ("name", "backends", "ip", "tags", "reason"),
    [
        ("db", [], None, [], "bad-backend"),
        ("db", ["5432"], None, [], "bad-backend"),
        ("db", ["5432:host"], None, [], "bad-backend"),
        ("db", ["5432::5432"], None, [], "bad-backend"),
        ("db", ["0:host:1"], None, [], "bad-backend"),
        ("db", ["1:host:65536"], None, [], "bad-backend"),
        ("db", ["1:2001:db8::1:1"], None, [], "bad-backend"),
        ("db", ["\u0661:host:1"], None, [], "bad-backend"),
        ("db", ["53:host:53/udp"], None, [], "bad-backend"),
        ("db", [f"{port}:host:1" for port in range(1, 300)], None, [], "bad-backend"),
        ("db", ["1:-host:1"], None, [], "bad-host"),
        ("db", ["1:host.1:1"], None, [], "bad-host"),
        ("db", [f"1:{'a.' * 130}b:1"], None, [], "bad-host"),
        ("db", ["1:host name:1"], None, [], "bad-host"),
        ("db", ["1:127.0.0.1:1"], None, [], "bad-host"),
        ("db", ["1:0.0.0.0:1"], None, [], "bad-host"),
        ("db", ["1:169.254.169.254:1"], None, [], "bad-host"),
        ("db", ["1:[::ffff:127.0.0.1]:1"], None, [], "bad-host"),
        ("db", ["1:[fe80::1%eth0]:1"], None, [], "bad-host"),
        ("d b", ["1:host:1"], None, [], "bad-name"),
        ("db", ["1:host:1"], "127.0.0.1", [], "bad-ip"),
        ("db", ["1:host:1"], None, ["grp"], "bad-tag"),
        ("db", ["1:host:1"], None, ["weight=no"], "bad-tag"),
    ],
)
def test_what_is_none(name: str, backends: list[str], ip: str | None, tags: list[str], reason: str) -> None:
    with pytest.raises(AppSwitchError) as error:
        read(name, backends, ip, tags)
    assert error.value.reason == reason


@given(st.text(max_size=30))
def test_whatever_is_said_of_a_host(text: str) -> None:
    """A host, or an error for people; nothing else."""
    with suppress(AppSwitchError):
        host = names.check_host(text)
        assert names.check_host(host) == host
        assert host.isprintable()
        assert " " not in host


@given(st.text(alphabet="0123456789:[]./abc", max_size=30))
def test_whatever_is_said_of_a_backend(text: str) -> None:
    with suppress(AppSwitchError):
        (backend,) = read("db", [text]).backends
        assert 0 < backend.port < 65536
        assert 0 < backend.host_port < 65536


class World:
    def __init__(self) -> None:
        self.table = ServiceTable("n1")
        self.client = self.table.new_app(name="web", ip=None)

    def add(self, *backends: str, name: str = "db", ip: str | None = None) -> App:
        return register(self.table, read(name, backends, ip), 7.0)

    def reached(self, app: App, port: int) -> list[tuple[str, int] | None]:
        plan = route.plan_connect(self.table, Policy(), self.client, app.ip, port, gateway=False)
        return [each.outside for each in plan.candidates] if isinstance(plan, Reach) else []


@pytest.fixture
def world() -> World:
    return World()


def test_to_the_table_it_is_an_app_with_a_listener_a_backend(world: World) -> None:
    db = world.add("5432:a:5432", "5432:b:5432", "6432:a:6432")
    assert world.table.resolve("db") == db.ip
    assert world.reached(db, 5432) == [("a", 5432), ("b", 5432)]
    assert world.reached(db, 6432) == [("a", 6432)]
    assert world.reached(db, 1) == []
    assert [each.outside for each in world.table.services([db])] == [("a", 5432), ("b", 5432), ("a", 6432)]
    assert world.table.ports_of(db.ip) == [("tcp", 5432), ("tcp", 6432)]


def test_one_of_a_name_on_a_node(world: World) -> None:
    world.add("1:a:1")
    with pytest.raises(AppSwitchError) as error:
        world.add("1:b:1")
    assert error.value.reason == "taken"
    with pytest.raises(AppSwitchError) as error:
        world.add("1:b:1", name="web", ip="10.1.1.1")
    assert error.value.reason == "name-taken"
    assert external.own(world.table, "web") is None, "an app of this name is none"


def test_beside_apps_of_the_same_name(world: World) -> None:
    """A database that moves out, say: the instances here are preferred."""
    here = world.table.new_app(name="db", ip=None)
    listener = Listener(world.table.next_listener_id(), here, 4, ip_address("0.0.0.0"), 5432, listening=True)
    world.table.add_listener(listener)
    db = world.add("5432:a:5432")
    assert db.ip == here.ip
    candidates = list(world.table.at_port(db.ip, 5432))
    for _ in range(3):
        assert [each.outside for each in Balancer(world.table).order(candidates, 0.0)] == [None, ("a", 5432)]


def test_on_whatever_node_it_was_registered(world: World) -> None:
    """Backends of two nodes' registrations take turns, ours and theirs."""
    other = ServiceTable("n2")
    theirs = register(other, read("db", ["5432:b:5432"]), 8.0)
    for key in other.dirty:
        world.table.put_remote("n2", key, other.record(key))
    db = world.add("5432:a:5432")
    assert theirs.ip == db.ip
    candidates, balancer = list(world.table.at_port(db.ip, 5432)), Balancer(world.table)
    first = [balancer.order(candidates, 0.0)[0].outside for _ in range(4)]
    assert sorted(map(str, first)) == ["('a', 5432)"] * 2 + ["('b', 5432)"] * 2
    assert {app.node for app in world.table.externals.values()} == {"n1", "n2"}
    world.table.forget_node("n2")
    assert world.reached(db, 5432) == [("a", 5432)]
    world.table.remove_app(db.id)
    assert not world.table.externals


def test_another_node_may_not_name_just_any_host(world: World) -> None:
    record = ListenerRecord(1, 4, ip_address("10.1.1.1"), 80, outside=("127.0.0.1", 22))
    with pytest.raises(AppSwitchError, match=r"127\.0\.0\.1"):
        world.table.put_remote("n2", "1/1", record)


@pytest.mark.parametrize(
    ("ip", "may"),
    [
        ("192.0.2.1", True),
        ("10.0.0.1", True),  # a managed database is often in a private network
        ("fd00::1", True),
        ("127.0.0.1", False),
        ("::1", False),
        ("0.0.0.0", False),
        ("169.254.169.254", False),
        ("fe80::1", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::ffff:10.0.0.1", False),
        ("100.64.0.1", False),  # apps' alone
        ("10.1.1.1", False),  # an app's
    ],
)
def test_what_a_backends_name_may_stand_for(world: World, ip: str, may: bool) -> None:
    world.table.new_app(name="app", ip=ip_address("10.1.1.1"))
    assert may_stand_for(world.table, ip_address(ip)) == may
