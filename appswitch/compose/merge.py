"""Several compose files, one upon the other, as the Compose specification says ("Merge").

A mapping gets the other's keys; a list the other's entries after its own; anything else gives way. But `command` and
the `test` of a health check give way as a whole; lists of variables and labels, and short `depends_on`, are the
mappings that they stand for; and what is there once (a port, a file of variables) stays once.

Each value keeps the place where it was written, for the errors of those who read it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import frozen

from appswitch.compose.document import Document, Path

AS_A_WHOLE = {("command",), ("healthcheck", "test")}
"""Keys of a service; so are those of the following."""
SHORT = {"condition": "service_started", "required": True}
"""What `depends_on: [db]` says of db."""
VARIABLES = {("environment",), ("labels",)}
LISTS = {("env_file",)}
"""A single entry stands for a list of one."""


def merged(below: Document, above: Document) -> Document:
    """Both in one. What is wrong in them (a list where a mapping should be) is left for who reads the values."""
    places: dict[Path, str] = {}
    try:
        data = _merge(_Value(below, (), below.data), _Value(above, (), above.data), ()).unfold((), places)
    except RecursionError:
        raise above.error((), "it is nested too deeply") from None
    document = below.with_data(data, places)
    document.warnings += above.warnings
    return document


@frozen
class _Value:
    """A value of a document, or one that is put together of several: then `parts` is a list or mapping of these."""

    document: Document
    path: Path
    plain: Any
    parts: dict[str, _Value] | list[_Value] | None = None

    def unfold(self, path: Path, places: dict[Path, str]) -> Any:
        """The value that is to stand at `path`; the places of it and of all that is in it are put into `places`."""
        place = self.document.places.get(self.path)
        if place is not None:
            places[path] = place
        if isinstance(self.parts, dict):
            return {key: each.unfold((*path, key), places) for key, each in self.parts.items()}
        if self.parts is not None:
            return [each.unfold((*path, i), places) for i, each in enumerate(self.parts)]
        if isinstance(self.plain, dict):
            return {key: each.unfold((*path, key), places) for key, each in self.entries().items()}
        if isinstance(self.plain, list):
            return [each.unfold((*path, i), places) for i, each in enumerate(self.items())]
        return self.plain

    def entries(self) -> dict[str, _Value]:
        """Of a mapping."""
        return {key: _Value(self.document, (*self.path, key), each) for key, each in self.plain.items()}

    def items(self) -> list[_Value]:
        """Of a list."""
        return [_Value(self.document, (*self.path, i), each) for i, each in enumerate(self.plain)]

    def with_parts(self, parts: dict[str, _Value] | list[_Value]) -> _Value:
        return _Value(self.document, self.path, None, parts)


def _merge(below: _Value, above: _Value, path: Path) -> _Value:
    key = tuple(map(str, path[2:])) if path[:1] == ("services",) else ()
    if above.plain is None and not (key[:1] in VARIABLES and len(key) == 2):
        return below
    if below.plain is None or key in AS_A_WHOLE:
        return above
    if key in VARIABLES or key == ("depends_on",):
        ours, theirs = (_as_mapping(each, key in VARIABLES) for each in (below, above))
        return above if ours is None or theirs is None else _mapping(above, ours, theirs, path)
    if key in LISTS:
        below, above = (each if isinstance(each.plain, list) else each.with_parts([each]) for each in (below, above))
        return _list(below, above, key)
    if isinstance(below.plain, dict) and isinstance(above.plain, dict):
        return _mapping(above, below.entries(), above.entries(), path)
    if isinstance(below.plain, list) and isinstance(above.plain, list):
        return _list(below, above, key)
    return above


def _mapping(above: _Value, ours: dict[str, _Value], theirs: dict[str, _Value], path: Path) -> _Value:
    parts = {**ours, **{key: _merge(ours[key], each, (*path, key)) if key in ours else each
                        for key, each in theirs.items()}}  # fmt: skip
    return above.with_parts(parts)


def _list(below: _Value, above: _Value, key: Path) -> _Value:
    """Those of `above` behind; of two that are the same thing the later one counts."""
    identity = _IDENTITIES.get(key)
    both = [each for one in (below, above) for each in (one.parts if isinstance(one.parts, list) else one.items())]
    if identity is not None:
        last = {identity(each.plain): each for each in both}
        both = [last[each] for each in dict.fromkeys(identity(each.plain) for each in both)]
    return above.with_parts(both)


def _as_mapping(value: _Value, variables: bool) -> dict[str, _Value] | None:
    """A list of NAME=VALUE, or of services, as the mapping that it stands for; None: it is neither."""
    if isinstance(value.plain, dict):
        return value.entries()
    if not isinstance(value.plain, list) or not all(isinstance(each, str) for each in value.plain):
        return None
    made = {}
    for each in value.items():
        if variables:
            name, equals, text = each.plain.partition("=")
            made[name] = _Value(each.document, each.path, text if equals else None)
        else:
            made[each.plain] = _Value(each.document, each.path, dict(SHORT))
    return made


def _port(value: Any) -> str:
    """Of `ports`: where it is reached, and what."""
    if not isinstance(value, dict):
        return str(value).removesuffix("/tcp")
    published = f"{value['published']}:" if value.get("published") is not None else ""
    return f"{published}{value.get('target')}/{value.get('protocol', 'tcp')}".removesuffix("/tcp")


def _file(value: Any) -> str:
    return str(value.get("path")) if isinstance(value, dict) else str(value)


_IDENTITIES: dict[Path, Callable[[Any], str]] = {
    ("ports",): _port,
    ("env_file",): _file,
    ("expose",): lambda value: str(value).removesuffix("/tcp"),
    ("profiles",): str,
}
"""Lists of a service in which a thing stands once -> which thing an entry is."""
