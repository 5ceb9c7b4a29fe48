"""The names of Unix sockets: what the kernel has to keep, and that it can (unix(7): 108 bytes)."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from appswitch.model import Address
from appswitch.wire import socknames

PORTS = st.integers(0, 65535)
IPS = st.ip_addresses()


@given(
    st.tuples(st.integers(0, 2**32 - 1), st.tuples(IPS, PORTS), st.tuples(IPS, PORTS)),
    st.tuples(st.integers(0, 2**32 - 1), st.tuples(IPS, PORTS), st.tuples(IPS, PORTS)),
)
def test_clients_names_are_abstract_and_tell_the_four_tuple_apart(
    one: tuple[int, tuple[Address, int], tuple[Address, int]],
    other: tuple[int, tuple[Address, int], tuple[Address, int]],
) -> None:
    first, second = (socknames.client_name(*each, 4, 4) for each in (one, other))
    assert first.startswith(b"\0asc")
    assert len(first) <= 107
    assert socknames.client_name(*one, 4, 4) == first
    mapped = [tuple((getattr(ip, "ipv4_mapped", None) or ip, port) for ip, port in each[1:]) for each in (one, other)]
    assert (first == second) == (one[0] == other[0] and mapped[0] == mapped[1])


def test_the_kernel_refuses_a_second_client_with_the_same_two_ends() -> None:
    name = socknames.client_name(7, (IPv4Address("10.1.1.1"), 40000), (IPv6Address("fd00::1"), 80), 6, 6)
    with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
        first.bind(name)
        assert first.getsockname() == name
        try:
            second.bind(name)
        except OSError as error:
            assert error.strerror == "Address already in use"  # noqa: PT017 - else: below
        else:
            raise AssertionError("bound twice")


@given(st.integers(0, 2**64 - 1), st.sampled_from([4, 6]), IPS, PORTS, st.booleans())
def test_listeners_files(number: int, family: int, ip: Address, port: int, v6only: bool) -> None:
    name = socknames.listener_file(number, family, ip, port, v6only)
    assert name.startswith("as.")
    assert bytes.fromhex(name[3:])
    assert Path(name).name == name
    assert len(f"/proc/self/fd/1048576/{name}") < 108
    assert name != socknames.listener_file(number ^ 1, family, ip, port, v6only)
    assert name != socknames.listener_file(number, family, ip, port ^ 1, v6only)
    assert name != socknames.listener_file(number, family, ip, port, not v6only)
