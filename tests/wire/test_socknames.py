"""The names of Unix sockets: what the kernel has to keep, and that it can (unix(7): 108 bytes)."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from appswitch.model import Address, App, Listener
from appswitch.wire import socknames
from appswitch.wire.socknames import ClientName, ListenerName, Medium

PORTS = st.integers(0, 65535)
IPS = st.ip_addresses()
NUMBERS = st.integers(0, 2**32 - 1)
ENDS = st.tuples(NUMBERS, st.tuples(IPS, PORTS), st.tuples(IPS, PORTS))
APP = App(id=1, ip=IPv4Address("10.1.1.1"), node="n1")


def unmapped(ip: Address) -> Address:
    return getattr(ip, "ipv4_mapped", None) or ip


@given(ENDS, ENDS)
def test_clients_names_are_abstract_and_tell_the_four_tuple_apart(
    one: tuple[int, tuple[Address, int], tuple[Address, int]],
    other: tuple[int, tuple[Address, int], tuple[Address, int]],
) -> None:
    first, second = (socknames.client_name(*each, 4, 4, 1) for each in (one, other))
    assert first.startswith(b"\0asc")
    assert len(first) <= 107
    assert socknames.client_name(*one, 4, 4, 1) == first
    mapped = [tuple((unmapped(ip), port) for ip, port in each[1:]) for each in (one, other)]
    assert (first == second) == (one[0] == other[0] and mapped[0] == mapped[1])


@given(ENDS, NUMBERS)
def test_a_clients_name_is_read_again(ends: tuple[int, tuple[Address, int], tuple[Address, int]], app_id: int) -> None:
    salt, source, dest = ends
    name = socknames.client_name(salt, source, dest, 6, 6, app_id)
    read = ClientName(salt, app_id, (unmapped(source[0]), source[1]), (unmapped(dest[0]), dest[1]))
    assert socknames.read_client_name(name) == read
    assert socknames.read_client_name(name[:-1]) is None
    assert socknames.read_client_name(b"x" + name[1:]) is None


@given(ENDS)
def test_the_names_of_the_ends_of_a_tcp_connection(ends: tuple[int, tuple[Address, int], tuple[Address, int]]) -> None:
    name = socknames.client_name(*ends, 4, 6, 1, Medium.TCP_SERVER)
    other = socknames.with_medium(name, Medium.TCP_CLIENT)
    assert [socknames.read_medium(each) for each in (name, other)] == [Medium.TCP_SERVER, Medium.TCP_CLIENT]
    assert other == socknames.client_name(*ends, 4, 6, 1, Medium.TCP_CLIENT)
    assert socknames.read_medium(socknames.client_name(*ends, 4, 6, 1)) == Medium.UNIX


def test_the_kernel_refuses_a_second_client_with_the_same_two_ends() -> None:
    name = socknames.client_name(7, (IPv4Address("10.1.1.1"), 40000), (IPv6Address("fd00::1"), 80), 6, 6, 1)
    with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
        first.bind(name)
        assert first.getsockname() == name
        try:
            second.bind(name)
        except OSError as error:
            assert error.strerror == "Address already in use"  # noqa: PT017 - else: below
        else:
            raise AssertionError("bound twice")


@given(NUMBERS, st.integers(0, 2**64 - 1), NUMBERS, st.sampled_from([4, 6]), IPS, PORTS, st.booleans())
def test_listeners_files(
    salt: int, number: int, app_id: int, family: int, ip: Address, port: int, v6only: bool
) -> None:
    app = evolve(APP, id=app_id)
    listener = Listener(number, app, family, unmapped(ip), port, v6only, reuse_addr=v6only, listening=True)
    name = socknames.listener_file(salt, listener)
    assert name.startswith("as.")
    assert bytes.fromhex(name[3:])
    assert Path(name).name == name
    assert len(f"/proc/self/fd/1048576/{name}") < 108
    assert name != socknames.listener_file(salt, evolve(listener, id=number ^ 1))
    assert name != socknames.listener_file(salt, evolve(listener, port=port ^ 1))
    assert name != socknames.listener_file(salt, evolve(listener, v6only=not v6only))
    read = socknames.read_listener_path(f"/proc/self/fd/9/{name}".encode() + b"\0")
    assert read == ListenerName(
        salt, number, app_id, listener.ip, port, family, v6only, reuse_addr=v6only, reuse_port=False
    )
    assert read is not None
    assert read.of(listener.app, listening=True) == listener
    assert socknames.read_listener_path(f"/proc/self/fd/9/{name[:-2]}".encode()) is None


@given(st.binary())
def test_any_other_name_is_none_of_ours(name: bytes) -> None:
    assert socknames.read_listener_path(name) is None
    assert socknames.read_listener_path(b"/tmp/as." + name.hex().encode()[:79]) is None
