"""The policy file: TOML text -> Policy (docs/policy.md has the format).

msgspec checks the shape and says where it is wrong ($.rule[2].from); which line that is, the text tells: the first one
after which the file, read up to there, has something at that place.
"""

from __future__ import annotations

import contextlib
import re
import tomllib
from bisect import bisect_left
from collections.abc import Sequence
from enum import Enum
from ipaddress import ip_network
from typing import Any, TypeVar

import msgspec

from appswitch.core import names
from appswitch.core.policy import RESERVED, Action, Default, Network, Policy, Rule, Selector
from appswitch.errors import AppSwitchError

Path = tuple[str | int, ...]
"""Where in the file: keys of tables and indices of arrays."""

Choice = TypeVar("Choice", bound=Enum)

PROTOS = ("tcp", "udp")
HINT = "docs/policy.md has the format"


class _From(msgspec.Struct, forbid_unknown_fields=True):
    name: str | list[str] = []
    tags: list[str] = []
    node: str | list[str] = []
    cidr: str | list[str] = []


class _To(_From, forbid_unknown_fields=True):
    port: int | str | list[int | str] = []
    proto: str | list[str] = []


class _Rule(msgspec.Struct, forbid_unknown_fields=True, rename={"source": "from"}):
    action: str
    name: str = ""
    source: _From = msgspec.field(default_factory=_From)
    to: _To = msgspec.field(default_factory=_To)
    cut: bool = False


class _File(msgspec.Struct, forbid_unknown_fields=True):
    default: str = Default.GRP.value
    rule: list[_Rule] = []


class _WrongError(Exception):
    """What is wrong, and where."""

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(message)
        self.path = path


def parse(content: bytes, file: str) -> Policy:
    """The policy of a file. AppSwitchError `bad-policy` with file, line and what is wrong there."""
    try:
        text = content.decode()
        document = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise _bad(file, content.count(b"\n", 0, error.start) + 1, "no UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise _bad(file, _line_in(str(error), text), f"no TOML: {error}") from None
    except ValueError as error:  # a number of more digits than Python takes
        raise _bad(file, 1, str(error).partition(":")[0]) from None
    except RecursionError:
        raise _bad(file, 1, "arrays or tables too deep in one another") from None
    try:
        return _policy(_shape(document))
    except _WrongError as wrong:
        raise _bad(file, _line_of(text, wrong.path), str(wrong)) from None


def _bad(file: str, line: int, what: str) -> AppSwitchError:
    return AppSwitchError("bad-policy", f"{file}:{line}: {what}", HINT)


def _shape(document: dict[str, Any]) -> _File:
    try:
        return msgspec.convert(document, _File)
    except msgspec.ValidationError as error:
        what, _, place = str(error).partition(" - at `$")
        path: list[str | int] = [int(index) if index else key for key, index in re.findall(r"(\w+)|\[(\d+)\]", place)]
        unknown = re.search(r"unknown field `(.*)`", what)
        if unknown:
            raise _WrongError((*path, unknown[1]), f"unknown key {unknown[1]}") from None
        raise _WrongError(tuple(path), what.replace("Object", "Table").replace("object", "table")) from None


def _policy(file: _File) -> Policy:
    rules: list[Rule] = []
    for index, raw in enumerate(file.rule):
        rule = _rule(("rule", index), raw, f"rule-{index + 1}")
        if rule.name in RESERVED or any(rule.name == other.name for other in rules):
            raise _WrongError(("rule", index, "name"), f"the name {rule.name!r} is taken")
        rules.append(rule)
    return Policy(tuple(rules), _choice(("default",), file.default, Default))


def _rule(at: Path, raw: _Rule, default_name: str) -> Rule:
    action = _choice((*at, "action"), raw.action, Action)
    if raw.cut and action is not Action.DENY:
        raise _WrongError((*at, "cut"), "only a rule that denies can cut")
    to = (*at, "to")
    return Rule(
        name=raw.name or default_name,
        action=action,
        client=_selector((*at, "from"), raw.source),
        server=_selector(to, raw.to),
        ports=tuple(_ports((*to, "port"), each) for each in _list(raw.to.port)),
        protos=tuple(_proto((*to, "proto"), each) for each in _list(raw.to.proto)),
        cut=raw.cut,
    )


def _selector(at: Path, raw: _From) -> Selector:
    tags = []
    for index, text in enumerate(raw.tags):
        try:
            tags.append(names.check_tag(text))
        except AppSwitchError:
            raise _WrongError((*at, "tags", index), f"{text!r} is not a tag (KEY=VALUE)") from None
    apps = tuple(_pattern((*at, "name"), each).lower() for each in _list(raw.name))
    nodes = tuple(_pattern((*at, "node"), each) for each in _list(raw.node))
    cidrs = tuple(_cidr((*at, "cidr"), each) for each in _list(raw.cidr))
    if cidrs and (tags or nodes):
        raise _WrongError((*at, "cidr"), "hosts outside, which a cidr is of, have neither tags nor a node")
    return Selector(apps, tuple(tags), nodes, cidrs)


def _cidr(at: Path, raw: str) -> Network:
    try:
        return ip_network(raw)
    except ValueError as error:  # which says it itself: an address with host bits, say
        reason = str(error) if "host bits" in str(error) else f"{raw!r} is neither an address nor a network"
        raise _WrongError(at, f"{reason} (192.0.2.0/24, 2001:db8::/32)") from None


def _pattern(at: Path, raw: str) -> str:
    if not raw or raw.split() != [raw]:
        raise _WrongError(at, f"{raw!r} can't be a name, nor a pattern of names")
    return raw


def _ports(at: Path, raw: int | str) -> range:
    match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", str(raw))
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 0 < first <= last < 65536:
        raise _WrongError(at, f"{raw!r} is neither a port nor a range of ports (8000 or '8000-8999')")
    return range(first, last + 1)


def _proto(at: Path, raw: str) -> str:
    if raw not in PROTOS:
        raise _WrongError(at, f"{raw!r} is none of {', '.join(PROTOS)}")
    return raw


def _choice(at: Path, raw: str, choices: type[Choice]) -> Choice:
    try:
        return choices(raw)
    except ValueError:
        raise _WrongError(at, f"{raw!r} is none of {', '.join(each.value for each in choices)}") from None


def _list(raw: Any) -> Sequence[Any]:
    return raw if isinstance(raw, list) else [raw]


def _line_in(message: str, text: str) -> int:
    """The line that tomllib names; it says "at end of document" for the last one."""
    line = re.search(r"line (\d+)", message)
    return int(line[1]) if line else text.count("\n") + 1


def _line_of(text: str, path: Path) -> int:
    """The line where what is at `path` begins; of a key that is missing, where its table begins. text: valid TOML."""
    if not path:
        return 1
    if not _reaches(tomllib.loads(text), path):
        return _line_of(text, path[:-1])
    lines = text.split("\n")

    def is_there(index: int) -> bool:
        for end in range(index + 1, len(lines)):  # a value may go on for a few lines more
            with contextlib.suppress(tomllib.TOMLDecodeError):
                return _reaches(tomllib.loads("\n".join(lines[:end])), path)
        return True

    return bisect_left(range(len(lines) - 1), True, key=is_there) + 1


def _reaches(value: Any, path: Path) -> bool:
    for step in path:
        inside = isinstance(value, list) and isinstance(step, int) and step < len(value)
        if not inside and not (isinstance(value, dict) and step in value):
            return False
        value = value[step]
    return True
