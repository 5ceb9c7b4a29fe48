"""PROXY protocol heads."""

from __future__ import annotations

from ipaddress import ip_address

from appswitch.wire.proxy import encode_head


def test_ipv4() -> None:
    """As section 2.2 of the specification has it, byte for byte."""
    assert encode_head((ip_address("203.0.113.7"), 40000), (ip_address("192.0.2.1"), 8080)) == bytes.fromhex(
        "0d0a0d0a000d0a515549540a 21 11 000c cb007107 c0000201 9c40 1f90"
    )


def test_ipv6() -> None:
    assert encode_head((ip_address("2001:db8::7"), 1), (ip_address("2001:db8::1"), 65535)) == bytes.fromhex(
        "0d0a0d0a000d0a515549540a 21 21 002420010db8000000000000000000000007 20010db8000000000000000000000001 0001 ffff"
    )
