"""Addresses in the trap protocol: 16 bytes."""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appswitch.model import Address
from appswitch.wire.addresses import pack_ip, unpack_ip


@given(st.ip_addresses(v=4))
def test_ipv4_is_v4_mapped(ip: IPv4Address) -> None:
    packed = pack_ip(ip)
    assert packed == socket.inet_pton(socket.AF_INET6, f"::ffff:{ip}")
    assert unpack_ip(packed) == ip


@given(st.ip_addresses(v=6))
def test_ipv6_is_itself(ip: IPv6Address) -> None:
    assert pack_ip(ip) == socket.inet_pton(socket.AF_INET6, str(ip))
    assert unpack_ip(pack_ip(ip)) == (ip.ipv4_mapped or ip)


@given(st.binary(min_size=16, max_size=16))
def test_all_16_bytes_are_an_address(packed: bytes) -> None:
    ip: Address = unpack_ip(packed)
    assert pack_ip(ip) == packed


@pytest.mark.parametrize("packed", [b"", b"\x7f\0\0\1", bytes(15), bytes(17), bytes(10) + b"\xff\xff\x7f\0\0\1x"])
def test_other_sizes_are_none(packed: bytes) -> None:
    with pytest.raises(ValueError, match=r"address"):
        unpack_ip(packed)
