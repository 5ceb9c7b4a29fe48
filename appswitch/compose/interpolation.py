"""`${VARIABLE}` in a value, as the Compose specification says ("Interpolation").

    $NAME  ${NAME}      its value; nothing when it isn't set
    ${NAME:-text}       text when it is empty or isn't set; ${NAME-text}: when it isn't set
    ${NAME:+text}       text when it is set and not empty, else nothing; ${NAME+text}: when it is set
    ${NAME:?text}       an error that says text when it is empty or isn't set; ${NAME?text}: when it isn't set
    $$                  a dollar

The text may have such things in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OPERATOR = re.compile(r":?[-+?]")
_STOP = re.compile(r"[$}]")


class InterpolationError(ValueError):
    """What is wrong with the value, or with the variable."""


def interpolate(text: str, variables: Mapping[str, str], unset: Callable[[str], None] = lambda _name: None) -> str:
    """The text with its variables' values. unset: told of each variable that should have had a value.

    InterpolationError: it can't be read, or a variable that must be set isn't.
    """
    try:
        return _Text(text, variables, unset).read()
    except RecursionError:
        raise InterpolationError("variables too deep in one another") from None


class _Text:
    def __init__(self, text: str, variables: Mapping[str, str], unset: Callable[[str], None]) -> None:
        self._text = text
        self._variables = variables
        self._unset = unset
        self._at = 0

    def read(self) -> str:
        """All of it: a closing brace is one like any other character."""
        result = self._until_brace()
        while self._at < len(self._text):
            self._at += 1
            result += "}" + self._until_brace()
        return result

    def _until_brace(self) -> str:
        """Up to a brace that closes, or the end."""
        parts = []
        while stop := _STOP.search(self._text, self._at):
            parts.append(self._text[self._at : stop.start()])
            self._at = stop.start()
            if stop[0] == "}":
                return "".join(parts)
            self._at += 1
            parts.append(self._after_dollar())
        parts.append(self._text[self._at :])
        self._at = len(self._text)
        return "".join(parts)

    def _after_dollar(self) -> str:
        if self._text.startswith("$", self._at):
            self._at += 1
            return "$"
        if self._text.startswith("{", self._at):
            self._at += 1
            value = self._braced(self._name())
            if not self._text.startswith("}", self._at):
                raise InterpolationError(f"there is no }} to a ${{ in {self._text!r}")
            self._at += 1
            return value
        return self._value(self._name())

    def _name(self) -> str:
        match = _NAME.match(self._text, self._at)
        if match is None:
            raise InterpolationError(f"no variable follows a $ in {self._text!r}; $$ is a dollar")
        self._at = match.end()
        return match[0]

    def _braced(self, name: str) -> str:
        operator = _OPERATOR.match(self._text, self._at)
        if operator is None:
            return self._value(name) if self._text.startswith("}", self._at) else ""
        self._at = operator.end()
        unset, self._unset = self._unset, lambda _name: None  # of a text that may not be taken
        text = self._until_brace()
        self._unset = unset
        value = self._variables.get(name)
        there = bool(value) if operator[0].startswith(":") else value is not None
        match operator[0][-1]:
            case "-":
                return value or "" if there else text
            case "+":
                return text if there else ""
            case _ if there:
                return value or ""
        raise InterpolationError(f"{name} must be set" + (f": {text}" if text else ""))

    def _value(self, name: str) -> str:
        if name not in self._variables:
            self._unset(name)
        return self._variables.get(name, "")
