"""Policy files: what they mean, and what is said of those that mean nothing."""

from __future__ import annotations

import re
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from appswitch.core.policy import Action, Default, Policy, Rule, Selector
from appswitch.core.policy_file import parse
from appswitch.errors import AppSwitchError


def policy(text: str) -> Policy:
    return parse(text.encode(), "file")


def test_nothing_said_is_the_grp_rule() -> None:
    assert policy("") == policy("# nothing\n") == policy('default = "grp"') == Policy()


def test_everything_said() -> None:
    text = """
default = "deny"

[[rule]]
name = "web-db"
action = "deny"
from = { name = "Web-*", tags = ["env=prod", "env=test", "tier=front"], node = "n?" }
to = { name = ["db", "db-*"], tags = ["grp=2"], node = ["n1", "n2"], port = [5432, "8000-8999", "9"], proto = "tcp" }
cut = true

[[rule]]
action = "audit"

[[rule]]
action = "allow"
[rule.to]
port = 53
proto = ["tcp", "udp"]
"""
    assert policy(text) == Policy(
        (
            Rule(
                "web-db",
                Action.DENY,
                Selector(("web-*",), (("env", "prod"), ("env", "test"), ("tier", "front")), ("n?",)),
                Selector(("db", "db-*"), (("grp", "2"),), ("n1", "n2")),
                (range(5432, 5433), range(8000, 9000), range(9, 10)),
                ("tcp",),
                cut=True,
            ),
            Rule("rule-2", Action.AUDIT),
            Rule("rule-3", Action.ALLOW, ports=(range(53, 54),), protos=("tcp", "udp")),
        ),
        Default.DENY,
    )


def test_windows_line_ends_are_lines() -> None:
    assert policy('default = "allow"\r\n[[rule]]\r\naction = "deny"\r\n').rules[0].action is Action.DENY


GOOD = '[[rule]]\nname = "a"\naction = "allow"\n\n'


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("default = \n", 1, "no TOML"),
        ("\n\n[[rule]\n", 3, "no TOML"),
        ('\n\nname = "x', 3, "no TOML"),
        ("a = 1\na = 2\n", 2, "no TOML"),
        ('default = "maybe"', 1, "'maybe' is none of grp, allow, deny"),
        ("default = true", 1, "Expected `str`"),
        ('\ndefualt = "deny"', 2, "unknown key defualt"),
        (GOOD + "[rules]\n", 5, "unknown key rules"),
        ("rule = 1", 1, "Expected `array`"),
        ("rule = [1]", 1, "Expected `table`"),
        (GOOD + "[[rule]]\n", 5, "missing required field `action`"),
        (GOOD + '[[rule]]\naction = "permit"', 6, "'permit' is none of allow, deny, audit"),
        (GOOD + '[[rule]]\naction = "deny"\nform = {}', 7, "unknown key form"),
        (GOOD + '[[rule]]\naction = "deny"\nfrom = "web"', 7, "Expected `table`"),
        (GOOD + '[[rule]]\naction = "deny"\nfrom = { port = 1 }', 7, "unknown key port"),
        (GOOD + '[[rule]]\naction = "deny"\n[rule.from]\nname = "x"\ntag = "y=1"', 9, "unknown key tag"),
        (GOOD + '[[rule]]\naction = "deny"\n[rule.to]\ntags = [\n "x=1",\n "y",\n]', 8, "'y' is not a tag"),
        ('[[rule]]\nfrom.name = ""\naction = "deny"', 2, "'' can't be a name"),
        ('[[rule]]\nfrom.name = "web db"\naction = "deny"', 2, "'web db' can't be a name"),
        ('[[rule]]\nto.node = ["n1", "n 2"]\naction = "deny"', 2, "'n 2' can't be a name"),
        ('[[rule]]\naction = "allow"\nto = { port = 0 }', 3, "0 is neither a port nor a range"),
        ('[[rule]]\naction = "allow"\nto = { port = 65536 }', 3, "65536 is neither"),
        ('[[rule]]\naction = "allow"\nto = { port = -1 }', 3, "-1 is neither"),
        ('[[rule]]\naction = "allow"\nto = { port = "9-8" }', 3, "'9-8' is neither"),
        ('[[rule]]\naction = "allow"\nto = { port = "http" }', 3, "'http' is neither"),
        ('[[rule]]\naction = "allow"\nto = { port = "8²" }', 3, "'8²' is neither"),
        ('[[rule]]\naction = "allow"\nto = { port = "80-" }', 3, "'80-' is neither"),
        ('[[rule]]\naction = "allow"\nto = { port = 80.5 }', 3, "Expected `int | str | array`"),
        ('[[rule]]\naction = "allow"\nto = { port = true }', 3, "Expected `int | str | array`"),
        ('[[rule]]\naction = "allow"\nto = { port = [80, []] }', 3, "Expected `int | str`"),
        ('[[rule]]\naction = "allow"\nto = { proto = "sctp" }', 3, "'sctp' is none of tcp, udp"),
        ('[[rule]]\naction = "allow"\ncut = 1', 3, "Expected `bool`"),
        ('[[rule]]\naction = "allow"\ncut = true', 3, "only a rule that denies can cut"),
        (GOOD + GOOD, 6, "the name 'a' is taken"),
        ('[[rule]]\naction = "allow"\n[[rule]]\nname = "rule-1"\naction = "allow"', 4, "the name 'rule-1' is taken"),
        ('[[rule]]\naction = "allow"\nname = "grp"', 3, "the name 'grp' is taken"),
        ('rule = [\n{ action = "allow" },\n{ action = "all" },\n]', 1, "'all' is none of"),
        ('[[rule]]\nname = """\n[[rule]]\naction = 3\n"""\naction = "deny"\n[[rule]]\naction = 1', 8, "Expected `str`"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text: str, line: int, says: str) -> None:
    with pytest.raises(AppSwitchError) as error:
        policy(text)
    assert error.value.reason == "bad-policy"
    assert error.value.message.startswith(f"file:{line}: ")
    assert says in error.value.message
    assert error.value.hint


@pytest.mark.parametrize(("content", "line"), [(b"\n# \xff\n", 2), (b"a = " + b"[" * 5000 + b"]" * 5000, 1)])
def test_what_is_no_text_or_too_deep(content: bytes, line: int) -> None:
    with pytest.raises(AppSwitchError) as error:
        parse(content, "file")
    assert error.value.message.startswith(f"file:{line}: ")


def test_a_large_file_is_soon_found_wrong() -> None:
    """Each rule is read some dozen times, not once a line."""
    text = "\n".join(f'[[rule]]\nname = "r{number}"\naction = "deny"' for number in range(2000))
    with pytest.raises(AppSwitchError) as error:
        policy(text + '\n[[rule]]\naction = "no"\n')
    assert error.value.message.startswith("file:6002: ")


LINES = st.lists(
    st.sampled_from(
        ["[[rule]]", 'action = "deny"', 'action = "x"', "[rule.from]", "[rule.to]", 'name = "a"', "name = [", "]",
         '"""', 'tags = ["a=b"]', "port = 1", 'port = ["1-2",', "to = {}", "cut = true", 'default = "deny"',
         "x", "x = 1"]
    ),
    max_size=8,
)  # fmt: skip


@given(LINES.map("\n".join) | st.text(max_size=60))
@example("rule = [[]]")
@example('"a]b" = 1')
def test_any_text_is_a_policy_or_an_error_that_names_a_line_of_it(text: str) -> None:
    try:
        policy(text)
    except AppSwitchError as error:
        assert error.reason == "bad-policy"  # noqa: PT017 - either outcome is fine
        match = re.match(r"file:(\d+): ", error.message)
        assert match
        assert 1 <= int(match[1]) <= text.count("\n") + 1


def test_the_example_of_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "policy.md").read_text()
    examples = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    assert examples
    for each in examples:
        assert policy(each).rules


def test_hosts_outside() -> None:
    text = """
[[rule]]
action = "allow"
to = { name = "*.Example.com", cidr = ["192.0.2.0/24", "2001:db8::/32"], port = 443 }
[[rule]]
action = "deny"
from = { cidr = "198.51.100.7" }
"""
    cidrs = ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")
    there = Selector(("*.example.com",), cidrs=cidrs)
    here = Selector(cidrs=(ip_network("198.51.100.7"),))
    assert policy(text).rules == (
        Rule("rule-1", Action.ALLOW, server=there, ports=(range(443, 444),)),
        Rule("rule-2", Action.DENY, client=here),
    )


@pytest.mark.parametrize(
    ("selector", "what"),
    [
        ('cidr = "10.0.0.1/8"', "10.0.0.1/8 has host bits set"),
        ('cidr = "example.com"', "'example.com' is neither an address nor a network"),
        ('cidr = ""', "'' is neither"),
        ('cidr = "10.0.0.0/33"', "'10.0.0.0/33' is neither"),
        ("cidr = 10", "Expected"),
        ('cidr = "10.0.0.0/8"\ntags = ["a=b"]', "neither tags nor a node"),
        ('cidr = "10.0.0.0/8"\nnode = "n1"', "neither tags nor a node"),
    ],
)
def test_what_is_no_host_outside(selector: str, what: str) -> None:
    for side in ("from", "to"):
        with pytest.raises(AppSwitchError, match=re.escape(what)) as error:
            policy(f'[[rule]]\naction = "deny"\n[rule.{side}]\n{selector}\n')
        assert error.value.message.startswith("file:4:")
