"""Names, virtual IPs and tags as people write them, and the addresses that are derived from names."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from appswitch.core import names
from appswitch.errors import AppSwitchError
from appswitch.model import Address

LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)


def reason_of(error: pytest.ExceptionInfo[AppSwitchError]) -> str:
    assert error.value.message
    assert "\n" not in error.value.message
    return error.value.reason


@pytest.mark.parametrize("text", ["web", "db-1", "a", "x.y", "a" * 63, "0a", "web.prod.example", "1password"])
def test_host_names_are_names(text: str) -> None:
    assert names.check_name(text) == text


def test_a_name_is_lower_case() -> None:
    assert names.check_name("Web-A.Example") == "web-a.example"


@pytest.mark.parametrize(
    "text",
    [
        "", ".", "a.", ".a", "a..b", "-a", "a-", "a.-b", "a b", "a\n", "a/b", "a:80", "ä", "a" * 64, "a\0b", "*",
        "10.1.1.1", "127.0.0.1", "::1", "1.2.3", "5", ".".join(["abcdefghi"] * 30),
    ],
)  # fmt: skip
def test_others_are_not(text: str) -> None:
    """RFC 1123 2.1; a name whose last label is a number would be taken for an address."""
    with pytest.raises(AppSwitchError) as error:
        names.check_name(text)
    assert reason_of(error) == "bad-name"


@pytest.mark.parametrize(
    "text", ["localhost", "LOCALHOST", "appswitch.local", "x.appswitch.local", "X.AppSwitch.Local"]
)
def test_some_names_are_reserved(text: str) -> None:
    with pytest.raises(AppSwitchError) as error:
        names.check_name(text)
    assert reason_of(error) == "bad-name"


@given(st.text(max_size=300))
@example("İ")  # its lower case is two characters
def test_a_checked_name_is_a_host_name_or_refused(text: str) -> None:
    try:
        name = names.check_name(text)
    except AppSwitchError as error:
        assert error.reason == "bad-name"  # noqa: PT017 - either outcome is fine
    else:
        assert name.isascii()
        assert name == names.check_name(name)
        assert all(0 < len(label) <= 63 for label in name.split("."))
        assert len(name) + len(".appswitch.local.") < 255


@pytest.mark.parametrize(
    ("text", "ip"),
    [
        ("10.1.1.1", IPv4Address("10.1.1.1")),
        ("8.8.8.8", IPv4Address("8.8.8.8")),
        ("FD00:0:0:0::1", IPv6Address("fd00::1")),
        ("2001:db8::1", IPv6Address("2001:db8::1")),
    ],
)
def test_virtual_ips(text: str, ip: Address) -> None:
    assert names.check_ip(text) == ip


@pytest.mark.parametrize(
    "text",
    [
        "", "web", "10.1.1", "10.1.1.1/24", "10.1.1.256", " 10.1.1.1", "127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "::",
        "224.0.0.1", "ff02::1", "169.254.1.1", "fe80::1", "fe80::1%lo", "fd00::1%1", "::ffff:10.1.1.1",
        "255.255.255.255", "10.1.1.1\0",
    ],
)  # fmt: skip
def test_not_virtual_ips(text: str) -> None:
    with pytest.raises(AppSwitchError) as error:
        names.check_ip(text)
    assert reason_of(error) == "bad-ip"


@given(st.ip_addresses())
def test_a_virtual_ip_is_one_that_the_rest_can_tell_from_others(ip: Address) -> None:
    try:
        assert names.check_ip(str(ip)) == ip
    except AppSwitchError:
        assert (
            ip.is_loopback
            or ip.is_unspecified
            or ip.is_multicast
            or ip.is_link_local
            or ip.version == 6
            or int(ip) == 2**32 - 1
        )


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("grp=1", ("grp", "1")),
        ("grp=", ("grp", "")),
        ("a.b-c_d=x=y", ("a.b-c_d", "x=y")),
        ("k=a/b:c", ("k", "a/b:c")),
        ("k=ä", ("k", "ä")),
    ],
)
def test_tags(text: str, tag: tuple[str, str]) -> None:
    assert names.check_tag(text) == tag


@pytest.mark.parametrize(
    "text", ["", "grp", "=1", "a b=1", "k=a,b", "k=a b", "k=a\n", "a" * 64 + "=1", "k=" + "v" * 256]
)
def test_not_tags(text: str) -> None:
    with pytest.raises(AppSwitchError) as error:
        names.check_tag(text)
    assert reason_of(error) == "bad-tag"


@given(LABEL, st.integers(0, 5))
def test_a_derived_address_depends_on_the_name_and_what_is_taken(name: str, clashes: int) -> None:
    taken: list[Address] = []
    for _ in range(clashes + 1):
        ip = names.derive_ip(name, taken)
        assert ip == names.derive_ip(name, taken)
        assert ip in ip_network("100.64.0.0/10")
        assert ip not in taken
        assert names.check_ip(str(ip)) == ip
        taken.append(ip)


@given(st.lists(LABEL, unique=True, min_size=50, max_size=50))
def test_derived_addresses_are_spread(several: list[str]) -> None:
    """Two names of fifty share an address once in three thousand times; more than two such pairs are a bad hash."""
    assert len({names.derive_ip(name, ()) for name in several}) >= 48


def test_the_derived_address_is_the_same_on_every_node_and_in_every_version() -> None:
    """A changed hash would give a cluster of two versions two addresses for one name."""
    assert names.derive_ip("web", ()) == names.derive_ip("web", [ip_address("10.0.0.1")])
    assert str(names.derive_ip("web", ())) == "100.68.219.77"


@given(st.integers(0, 10**7))
def test_client_only_identities(number: int) -> None:
    """RFC 3927 2.1: the first and the last 256 addresses of 169.254/16 are reserved."""
    ip = names.link_local("n1", number)
    assert ip in ip_network("169.254.0.0/16")
    assert 1 <= ip.packed[2] <= 254
    assert ip != names.link_local("n1", number + 1)


@pytest.mark.parametrize("text", ["grp", "=x", "a b=x", "a=b,c", "a=b c"])
def test_the_hint_says_what_a_tag_is_made_of(text: str) -> None:
    with pytest.raises(AppSwitchError) as error:
        names.check_tag(text)
    assert "without spaces and commas" in (error.value.hint or "")
