"""Who may reach an app: as the policy says, service by service."""

from __future__ import annotations

from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st

from appswitch.core.policy import Policy
from appswitch.core.reachable import PRIVATE, who_reaches
from appswitch.core.service_table import ServiceTable
from appswitch.model import App, Listener

ANY, LOOPBACK = IPv4Address("0.0.0.0"), IPv4Address("127.0.0.1")


def listen(table: ServiceTable, app: App, port: int, ip: IPv4Address = ANY) -> None:
    table.add_listener(Listener(table.next_listener_id(), app, 4, ip, port, listening=True))


def test_by_group_and_by_scope() -> None:
    table = ServiceTable("n1")
    db = table.new_app(name="db", ip=None, tags=(("grp", "2"),))
    table.new_app(name="app", ip=None, tags=(("grp", "1"), ("grp", "2")))
    table.new_app(name="web", ip=None, tags=(("grp", "1"),))
    twin = table.new_app(name=None, ip=db.ip, tags=(("grp", "2"),))
    listen(table, db, 5432)
    listen(table, db, 9000, LOOPBACK)
    found = [(each.client.name or each.client.id, each.listener.port, each.allowed, each.rule)
             for each in who_reaches(table, Policy(), db)]  # fmt: skip
    assert found == [
        ("app", 5432, True, "grp"),
        ("web", 5432, False, "grp"),
        (twin.id, 5432, True, "grp"),
        ("app", 9000, False, PRIVATE),
        ("web", 9000, False, PRIVATE),
        (twin.id, 9000, True, "grp"),
    ]


@given(st.lists(st.sampled_from("abc"), max_size=6), st.sets(st.integers(1, 9), max_size=4))
def test_each_pair_once(names: list[str], ports: set[int]) -> None:
    table = ServiceTable("n1")
    server = table.new_app(name="server", ip=None)
    for name in names:
        table.new_app(name=name, ip=None)
    for port in ports:
        listen(table, server, port)
    pairs = [(each.client.id, each.listener.port) for each in who_reaches(table, Policy(), server)]
    assert len(set(pairs)) == len(pairs) == len(names) * len(ports)
