r"""Files of variables: `.env`, and a service's `env_file`, as the Compose specification says ("Env_file format").

    # a comment
    NAME=text with $VARIABLES     # a comment, after a space
    NAME="text with $VARIABLES, \n and more
    lines"
    NAME='just as it is'
    NAME                          # what the environment says

`export` before a name is passed over, and `NAME: text` is the same as `NAME=text`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from appswitch.compose.interpolation import InterpolationError, interpolate

_LINE = re.compile(r"[ \t]*(?:export[ \t]+)?(?P<name>[A-Za-z_][A-Za-z0-9_.-]*)[ \t]*(?P<equals>[=:][ \t]*)?")
_BLANK = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\r?\n|\Z)")
_QUOTED = re.compile(r"'(?P<single>[^']*)'|\"(?P<double>(?:[^\"\\]|\\.)*)\"", re.DOTALL)
_PLAIN = re.compile(r"(?P<text>[^\r\n]*?)(?:[ \t]+#[^\r\n]*)?[ \t]*(?=\r?\n|\Z)")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "$": "$$"}


class DotenvError(ValueError):
    """line: where it is, from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def parse(text: str, environment: Mapping[str, str], raw: bool = False) -> dict[str, str]:
    """The variables. environment: what the file's values may name, beside the ones before them. raw: as they stand.

    A name alone has the environment's value; when it has none, the name is left out. DotenvError.
    """
    found: dict[str, str] = {}
    at = 0
    while at < len(text):
        blank = _BLANK.match(text, at)
        if blank is not None:
            at = max(blank.end(), at + 1)
            continue
        line = text.count("\n", 0, at) + 1
        name = _LINE.match(text, at)
        if name is None:
            raise DotenvError(line, f"not NAME=VALUE: {_line_at(text, at)!r}")
        if name["equals"] is None:
            if name["name"] in environment:
                found[name["name"]] = environment[name["name"]]
            at = name.end()
        elif raw:
            end = text.find("\n", name.end())
            end = len(text) if end < 0 else end
            found[name["name"]] = text[name.end() : end].rstrip("\r")
            at = end
        else:
            try:
                found[name["name"]], at = _value(text, name.end(), {**found, **environment})
            except InterpolationError as error:
                raise DotenvError(line, f"{name['name']}: {error}") from None
        blank = _BLANK.match(text, at)
        if blank is None:
            raise DotenvError(line, f"{name['name']}: what follows it can't be read: {_line_at(text, at)!r}")
        at = blank.end()
    return found


def _value(text: str, at: int, variables: Mapping[str, str]) -> tuple[str, int]:
    """The value that begins there, and where it ends."""
    quoted = _QUOTED.match(text, at)
    if quoted is None:
        if text.startswith(("'", '"'), at):
            raise InterpolationError("a quote isn't closed")
        plain = _PLAIN.match(text, at)
        if plain is None:
            raise InterpolationError("a carriage return in the middle of a line: quote the value")
        return interpolate("" if plain["text"].startswith("#") else plain["text"], variables), plain.end()
    if quoted["single"] is not None:
        return quoted["single"], quoted.end()
    unescaped = _ESCAPE.sub(lambda match: _ESCAPES.get(match[1], match[0]), quoted["double"])
    return interpolate(unescaped, variables), quoted.end()


def _line_at(text: str, at: int) -> str:
    return text[at:].split("\n", 1)[0].rstrip("\r")
