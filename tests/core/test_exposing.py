"""Exposing: what is written, which gateway is meant, and who has a port that two want."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from attrs import evolve

from appswitch.core.exposing import concerns, exposed_by, exposures, parse_expose
from appswitch.core.service_table import ServiceTable
from appswitch.errors import AppSwitchError
from appswitch.model import Address, Expose, Exposure, Node

WEB = ip_address("10.1.1.1")
DB = ip_address("10.1.1.2")
GATEWAY = Node("gw1", gateway=True, address="10.0.0.1", port=7947)


def owns(ip: Address) -> bool:
    return str(ip) in ("192.0.2.1", "2001:db8::1")


@pytest.mark.parametrize(
    ("text", "expose"),
    [
        ("80", Expose(80)),
        ("80/tcp", Expose(80)),
        ("80:8080", Expose(80, 8080)),
        ("80:10.0.0.1:8080", Expose(80, 8080, "10.0.0.1")),
        ("80:[2001:DB8:0::1]:8080", Expose(80, 8080, "2001:db8::1")),
        ("80:Gw-1:8080", Expose(80, 8080, "Gw-1")),
        ("80/proxy", Expose(80, proxy=True)),
        ("80:8080/proxy", Expose(80, 8080, proxy=True)),
        ("65535:gw:1/proxy", Expose(65535, 1, "gw", proxy=True)),
    ],
)
def test_what_can_be_written(text: str, expose: Expose) -> None:
    assert parse_expose(text) == expose


@pytest.mark.parametrize(
    "text",
    ["", "http", "0", "65536", "80:", "80:0", "80:99999", ":80", "80:gw:", "80::8080", "80:[::1:8080",
     "80:2001:db8::1:80", "80:8080/sctp", "80:8080/", "-1", " 80", "80\n", "8\u0660",
     "80:8080/proxy/proxy", "80:gw:8080:1"],
)  # fmt: skip
def test_what_can_not(text: str) -> None:
    with pytest.raises(AppSwitchError) as caught:
        parse_expose(text)
    assert caught.value.reason == "bad-expose"
    assert caught.value.hint


@pytest.mark.parametrize("text", ["53/udp", "53:53/udp", "53:gw1:53/udp"])
def test_udp_is_not_let_in(text: str) -> None:
    with pytest.raises(AppSwitchError, match="TCP only"):
        parse_expose(text)


@pytest.mark.parametrize(
    ("gateway", "meant"),
    [
        (None, True),
        ("gw1", True),
        ("10.0.0.1", True),
        ("192.0.2.1", True),
        ("2001:db8::1", True),
        ("gw2", False),
        ("10.0.0.2", False),
    ],
)
def test_which_gateway_is_meant(gateway: str | None, meant: bool) -> None:
    assert concerns(Expose(80, 8080, gateway), GATEWAY, owns) is meant


def test_a_host_by_itself_has_no_address_of_the_cluster() -> None:
    assert not concerns(Expose(80, 8080, "None"), Node("alone", gateway=True), owns)


def test_apps_that_expose_one_service_are_one_exposure() -> None:
    table = ServiceTable("gw1")
    for _ in range(2):
        table.new_app(name="web", ip=WEB, exposes=(Expose(80, 8080), Expose(443)))
    assert list(exposures(table, GATEWAY, owns)) == [(Exposure(WEB, 80, 8080), None), (Exposure(WEB, 443), None)]


def test_who_was_first_has_the_port() -> None:
    table = ServiceTable("gw1")
    table.new_app(name="db", ip=DB, exposes=(Expose(5432, 8080),), started=2.0)
    first = table.new_app(name="web", ip=WEB, exposes=(Expose(80, 8080),), started=1.0)
    web, db = Exposure(WEB, 80, 8080), Exposure(DB, 5432, 8080)
    assert list(exposures(table, GATEWAY, owns)) == [(web, None), (db, web)]
    table.remove_app(first.id)
    assert list(exposures(table, GATEWAY, owns)) == [(db, None)]


def test_ports_that_the_gateway_chooses_meet_nobody() -> None:
    table = ServiceTable("gw1")
    table.new_app(name="db", ip=DB, exposes=(Expose(80),))
    table.new_app(name="web", ip=WEB, exposes=(Expose(80),))
    assert [owner for _, owner in exposures(table, GATEWAY, owns)] == [None, None]


def test_what_is_for_another_gateway() -> None:
    table = ServiceTable("gw1")
    table.new_app(name="web", ip=WEB, exposes=(Expose(80, 8080, "gw2"),))
    assert not list(exposures(table, GATEWAY, owns))
    assert list(exposures(table, evolve(GATEWAY, name="gw2"), owns)) == [(Exposure(WEB, 80, 8080), None)]


def test_how_an_app_exposes_it() -> None:
    app = ServiceTable("a").new_app(name="web", ip=WEB, exposes=(Expose(80, 8080), Expose(80, 8081, proxy=True)))
    assert exposed_by(app, Exposure(WEB, 80, 8081)) == Expose(80, 8081, proxy=True)
    assert exposed_by(app, Exposure(WEB, 80)) is None
    assert exposed_by(app, Exposure(DB, 80, 8080)) is None
