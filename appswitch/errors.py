"""Errors that people see: each names the cause and, where there is one, the way out."""

from __future__ import annotations


class AppSwitchError(Exception):
    """An error with a cause for the user and perhaps a hint.

    reason: a short stable word for programs; message: the cause; hint: what to do about it.
    """

    def __init__(self, reason: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message
