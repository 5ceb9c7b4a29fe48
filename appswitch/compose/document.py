"""YAML text -> values that know their line.

PyYAML makes the nodes; the values are made here, for three reasons. Compose files are YAML 1.2: `restart: no` is a
text and `22:22` no number in base 60. Variables are put into each value, not into the file's text, so that what they
contain is never read as YAML. And each value's line is kept, for the errors of those who read it later.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import yaml

from appswitch.compose.interpolation import InterpolationError, interpolate
from appswitch.errors import AppSwitchError

Path = tuple[str | int, ...]
"""The keys and indices that lead to a value."""

MOST_VALUES = 100_000
"""An alias may stand for a whole tree, and that for many: a small file could ask for all memory."""

EXTENSION, OURS = "x-", "x-appswitch"
TEXTS = {"environment", "labels"}
"""Mappings of a service whose values are texts as they are written: 1.10 is no number there, `x-a` no extension."""

_TAG = "tag:yaml.org,2002:"
_STRING, _NULL, _MERGE = _TAG + "str", _TAG + "null", _TAG + "merge"


class _Loader(yaml.SafeLoader):
    """Resolves plain scalars by YAML 1.2's core schema (10.3.2)."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own


class _Dumper(yaml.SafeDumper):
    """Quotes what would be no text for YAML 1.2's readers, and what would be none for 1.1's."""


for _name, _form, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("merge", "<<", ["<"]),
):
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(f"(?:{_form})\\Z"), _first)
    _Dumper.add_implicit_resolver(_TAG + _name, re.compile(f"(?:{_form})\\Z"), _first)

_SCALARS: dict[str, Callable[[str], Any]] = {
    _STRING: str,
    _NULL: lambda _text: None,
    _TAG + "bool": lambda text: text.lower() == "true",
    _TAG + "int": lambda text: int(text, 0 if text[:2] in ("0o", "0x") else 10),
    _TAG + "float": float,
}


class Document:
    """name: of the file, for errors; data: the values, without extensions (`x-...`) but ours; warnings: for people."""

    def __init__(self, name: str, text: str, variables: Mapping[str, str]) -> None:
        """AppSwitchError `bad-compose`: the text can't be read."""
        self.name = name
        self.warnings: list[str] = []
        self.places: dict[Path, str] = {}
        """Of each value: FILE:LINE."""
        self._variables = variables
        self._active: set[int] = set()
        self.data: Any = None
        try:
            node = _Loader(text).get_single_node()
            if node is not None:
                self.data = self._make(node, ())
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = f"{name}:{mark.line + 1}" if mark else name
            raise _bad(f"{where}: {error.problem or error.context}") from None
        except yaml.YAMLError as error:
            raise _bad(f"{name}: {error}".splitlines()[0]) from None
        except RecursionError:
            raise _bad(f"{name}: it is nested too deeply") from None

    def error(self, path: Path, message: str, hint: str = "") -> AppSwitchError:
        """An error of the value there; of what it should be in, when it isn't there."""
        return _bad(f"{self.place(path)}: {message}", hint)

    def place(self, path: Path) -> str:
        """The file, the line and the keys."""
        known = next((path[:n] for n in range(len(path), -1, -1) if path[:n] in self.places), ())
        keys = ".".join(map(str, path))
        return self.places.get(known, f"{self.name}:1") + (f": {keys}" if keys else "")

    def with_data(self, data: Any, places: Mapping[Path, str]) -> Document:
        """A copy that has other values, and their places."""
        made = copy.copy(self)
        made.data, made.places, made.warnings = data, dict(places), list(self.warnings)
        return made

    def _make(self, node: yaml.Node, path: Path, line: int | None = None) -> Any:
        """The node's value. line: of its key; the value may begin below it, or be an alias of one that is elsewhere."""
        self._put_place(path, line or node.start_mark.line + 1)
        if len(self.places) > MOST_VALUES:
            raise self.error(path, f"the file has more than {MOST_VALUES} values")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if id(node) in self._active:
            raise self.error(path, "it contains itself")
        self._active.add(id(node))
        value: Any
        if isinstance(node, yaml.SequenceNode):
            value = [self._make(each, (*path, i)) for i, each in enumerate(node.value)]
        elif isinstance(node, yaml.MappingNode):
            value = self._mapping(node, path)
        self._active.remove(id(node))
        return value

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        texts = is_texts(path)
        made = {}
        for key, (line, each) in self._entries(node, path).items():
            if not texts and path != ("services",) and key.startswith(EXTENSION) and key != OURS:
                continue
            made[key] = self._make(each, (*path, key), line)
        return made

    def _entries(self, node: yaml.MappingNode, path: Path) -> dict[str, tuple[int, yaml.Node]]:
        """Key -> its line and its value's node; those that are merged in (`<<`) only where the key isn't there."""
        own: dict[str, tuple[int, yaml.Node]] = {}
        merged: dict[str, tuple[int, yaml.Node]] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                self._fail(path, line, "a key is a text")
            if key.tag == _MERGE:
                for each in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    if not isinstance(each, yaml.MappingNode):
                        self._fail(path, line, "<< takes a mapping, or a list of them")
                    if id(each) in self._active:
                        self._fail(path, line, "it contains itself")
                    self._active.add(id(each))
                    merged = {**self._entries(each, path), **merged}
                    self._active.remove(id(each))
            elif key.value in own:
                self._fail((*path, key.value), line, f"it is there twice, first in line {own[key.value][0]}")
            else:
                own[key.value] = line, value
        return {**merged, **own}

    def _fail(self, path: Path, line: int, message: str) -> NoReturn:
        self._put_place(path, line)
        raise self.error(path, message)

    def _put_place(self, path: Path, line: int) -> None:
        self.places[path] = f"{self.name}:{line}"

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        if node.tag not in _SCALARS:
            raise self.error(path, f"it has a tag that isn't known: {node.tag.removeprefix(_TAG)}")
        if "$" in node.value:
            try:
                return interpolate(node.value, self._variables, lambda name: self._warn(path, name))
            except InterpolationError as error:
                raise self.error(path, str(error)) from None
        plain_text = node.tag != _NULL and is_texts(path[:-1]) and node.style is None
        try:
            return node.value if plain_text else _SCALARS[node.tag](node.value)
        except ValueError:  # `!!int x`, or one of more digits than Python takes
            raise self.error(path, f"not a number: {node.value[:40]}") from None

    def _warn(self, path: Path, name: str) -> None:
        self.warnings.append(f"{self.place(path)}: {name} isn't set: nothing stands in its place")


def written(data: Any) -> str:
    """YAML of such values."""
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False)
    return text


def is_texts(path: Path) -> bool:
    """Whether the value there is a mapping whose values are texts."""
    return len(path) == 3 and path[0] == "services" and path[2] in TEXTS


def _bad(message: str, hint: str = "") -> AppSwitchError:
    return AppSwitchError("bad-compose", message, hint)
